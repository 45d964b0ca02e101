#!/usr/bin/env python3
"""The report page in a real browser: what a reader does with it, and what must not happen.

    python3 tests/plots/check_report.py build/release/mpbench [--shots DIR] [--axe axe.min.js]

Needs chromium. ci/report-check runs it; ctest does not, since a browser is no dependency of the project.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import chromium  # noqa: E402
import report_databases  # noqa: E402

LIMIT = 5_000_000
failures = []


def check(fact, condition, found=""):
    print("%s %s%s" % ("ok  " if condition else "FAIL", fact, ": %s" % (found,) if not condition else ""))
    if not condition:
        failures.append(fact)


def rows(page, section):
    """Texts of the rows that are shown."""
    return page.run("[...document.querySelectorAll('#%s tbody tr')].filter(r => !r.hidden).map(r => r.textContent)" % section)


def numbers(page, section, column):
    return page.run("[...document.querySelectorAll('#%s tbody tr')].map(r => Number(r.cells[%d].dataset.v))" % (section, column))


def check_links(page, name):
    ids = set(page.run("[...document.querySelectorAll('[id]')].map(e => e.id)"))
    links = page.run("[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))")
    check(name + ": every link leads to a place on the page", links and all(a[0] == "#" and a[1:] in ids for a in links),
          [a for a in links if a[1:] not in ids][:3])
    hidden = page.run("""[...new Set([...document.querySelectorAll('a[href]')].map(a => a.hash))].filter(hash => {
        location.hash = hash; dispatchEvent(new Event('hashchange'));
        const box = document.getElementById(decodeURIComponent(hash.slice(1))).getBoundingClientRect();
        return box.width === 0 || box.bottom < 0 || box.top > innerHeight; })""")
    check(name + ": and what it leads to is in sight", not hidden, hidden[:3])


def check_safe(page, name):
    check(name + ": no complaints on the console", not page.complaints, page.complaints[:3])
    check(name + ": two scripts, no handlers, nothing owned", page.run(
        "document.scripts.length === 2 && document.title !== 'owned' && ![...document.querySelectorAll('*')].some("
        "e => [...e.attributes].some(a => a.name.startsWith('on')))"))
    check(name + ": nothing is fetched", page.run(
        "performance.getEntriesByType('resource').every(e => e.name.startsWith('data:'))"))
    refused = page.run("""new Promise(done => { document.addEventListener('securitypolicyviolation', () => done(true));
        const s = document.createElement('script'); try { s.text = 'window.owned = 1'; document.body.append(s); } catch {}
        setTimeout(() => done(!window.owned), 300); })""")
    check(name + ": an injected script does not run", refused and not page.run("window.owned"))


def check_sort(page):
    column = page.run("[...document.querySelectorAll('#cells thead th')].findIndex(t => t.textContent === 'Time s')")
    click = "document.querySelectorAll('#cells thead th')[%d].querySelector('button').click()" % column
    page.run(click)
    up = numbers(page, "cells", column)
    known = [x for x in up if x is not None]
    check("sorting: ascending, cells without a number last", known == sorted(known) and up[:len(known)] == known)
    page.run(click)
    down = numbers(page, "cells", column)
    check("sorting: then descending, those still last", down[:len(known)] == sorted(known, reverse=True))
    check("sorting: is said to screen readers", page.run(
        "document.querySelectorAll('#cells thead th')[%d].getAttribute('aria-sort')" % column) == "descending" and
        "descending" in page.run("document.getElementById('status').textContent"))


def check_filter(page):
    page.run("""{ const f = document.querySelector('#cells input[type=search]'); f.value = 'BF16';
        f.dispatchEvent(new Event('input')); }""")
    found = rows(page, "cells")
    check("filter: rows with the text, in any case", len(found) == 20 and all("bf16" in r for r in found), len(found))
    check("filter: says how many", page.run("document.querySelector('#cells output').textContent") == "20 of 100 rows")
    hidden = page.run("document.querySelector('#cells tbody tr[hidden]').id")
    page.run("location.hash = '#%s'; dispatchEvent(new Event('hashchange'))" % hidden)
    check("filter: a link to a hidden row shows it", page.run("!document.getElementById('%s').hidden" % hidden))
    page.run("""{ const f = document.querySelector('#incidents select'); f.value = 'unexpected';
        f.dispatchEvent(new Event('change')); }""")
    check("filter: a choice of a column", len(rows(page, "incidents")) == 2 and "nan_first" in rows(page, "incidents")[0])


def check_pictures(page):
    page.run("document.querySelector('#pictures input[type=range]').focus()")
    before = page.run("document.querySelector('.pair img + img').style.clipPath")
    for _ in range(5):
        page.press("ArrowRight")
    after = page.run("document.querySelector('.pair img + img').style.clipPath")
    check("pictures: the slider moves with the keyboard", (before, after) == ("inset(0px 0px 0px 50%)", "inset(0px 0px 0px 55%)"),
          (before, after))
    check("pictures: are loaded and have texts", page.run(
        "[...document.querySelectorAll('.gallery img')].every(i => i.naturalWidth > 0 && i.alt.length > 20)"))
    page.run("document.querySelector('#pictures input[type=checkbox]').click()")
    check("pictures: the difference can be seen", page.run(
        "getComputedStyle(document.querySelector('.pair.apart img + img')).mixBlendMode") == "difference")
    page.run("document.querySelector('#pictures button.all').click()")
    check("pictures: all of them on demand", page.run(
        "[...document.querySelectorAll('.gallery figure')].every(f => f.getBoundingClientRect().height > 0)"))


def check_series(page):
    page.run("document.querySelector('.chart details').open = true")
    page.run("new Promise(requestAnimationFrame)")
    check("series: a chart has a text and a table of its values", page.run(
        "document.querySelector('.chart svg').getAttribute('aria-label').includes('120 runs') && "
        "document.querySelectorAll('.chart details tbody tr').length >= 120"))
    check("series: findings are marked", page.run("document.querySelectorAll('.chart .mark.open').length") > 0)


def check_theme(page):
    page.run("document.querySelector('nav button').click(); document.querySelector('nav button').click()")
    check("theme: the button makes it dark", page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)",
          page.run("getComputedStyle(document.body).backgroundColor"))
    check("theme: and says so", page.run("document.querySelector('nav button').textContent") == "Theme: dark")


def check_keyboard(page):
    """From the top: the link past the navigation comes first, and everything that has the focus shows it."""
    page.press("Tab")
    check("keyboard: the first stop skips to the results", page.run("document.activeElement.className") == "skip")
    unseen = []
    for _ in range(60):
        page.press("Tab")
        unseen += page.run("""(e => { const s = getComputedStyle(e), b = e.getBoundingClientRect();
            return s.outlineStyle !== 'none' && b.width && b.bottom > 0 && b.top < innerHeight ? [] : [e.outerHTML.slice(0, 80)];
            })(document.activeElement)""")
    check("keyboard: 60 stops, each of them in sight and marked", not unseen, unseen[:3])


def check_without_script(browser, address):
    page = browser.page(address, script=False)
    # The page's own script is off; expressions from here still run.
    check("without script: scenarios and incidents are there", len(rows(page, "overview")) == 10 and len(rows(page, "incidents")) == 6)
    check("without script: it says what is missing", "script" in page.run("document.querySelector('#series').textContent"))


def check_axe(page, name, source):
    page.run(source + "; true")
    found = page.run("""axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(
        v => v.id + ' ' + v.nodes.length + ' ' + v.nodes[0].html.slice(0, 160) + ' ' + v.nodes[0].failureSummary))""")
    check(name + ": axe finds nothing", not found, "\n".join(found))


def look(browser, name, address, options):
    """In light and dark, wide and narrow."""
    for kind, width, dark in (("light", 1400, False), ("dark", 1400, True), ("narrow", 400, False)):
        page = browser.page(address, width=width, dark=dark)
        check("%s, %s: the page does not scroll sideways" % (name, kind),
              page.run("document.documentElement.scrollWidth") <= width, page.run("document.documentElement.scrollWidth"))
        check("%s, %s: no complaints on the console" % (name, kind), not page.complaints, page.complaints[:3])
        if options.shots:
            page.screenshot(options.shots / ("%s-%s.png" % (name, kind)), whole=True)
        if options.axe:
            check_axe(page, "%s, %s" % (name, kind), options.axe.read_text())


def write_page(options, folder, name):
    """Makes the database and the page; its size."""
    database, out = folder / (name + ".db"), folder / name
    getattr(report_databases, name)(database)
    said = subprocess.run([options.mpbench, "report", "--db", database, "--out", out], check=True, text=True,
                          capture_output=True).stdout
    size = (out / "index.html").stat().st_size
    check("%s: %.2f MB, less than 5" % (name, size / 1e6), size < LIMIT)
    check(name + ": the command says where and how large", re.match(r".*/index\.html: %.2f MB, " % (size / 1e6), said), said)
    return (out / "index.html").as_uri()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mpbench", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    parser.add_argument("--axe", type=pathlib.Path)
    options = parser.parse_args()
    options.mpbench = options.mpbench.resolve()
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium.Browser() as browser:
        for name in ("nightly", "small", "empty", "hostile"):
            address = write_page(options, pathlib.Path(folder), name)
            look(browser, name, address, options)
            page = browser.page(address)
            check_links(page, name)
            if name == "nightly":
                for part in (check_sort, check_filter, check_pictures, check_series, check_theme):
                    part(page)
                check_keyboard(browser.page(address))
                check_without_script(browser, address)
            check_safe(page, name)
    print("%d failed" % len(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
