// What the report page does beyond being read: theme, sort, filter, copy, pictures, charts.
// Texts out of the database become text nodes and attributes that hold texts, nothing else.
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const status = document.getElementById("status");

const make = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes))
        node.setAttribute(name, value);
    node.append(...children);
    return node;
};
const el = (tag, attributes = {}, ...children) =>
    make(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
    make(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const say = text => { status.textContent = text; };

// ---- theme

const themes = ["auto", "light", "dark"];
const themeButton = el("button", {type: "button"});
const setTheme = theme => {
    document.documentElement.dataset.theme = theme;
    themeButton.textContent = `Theme: ${theme}`;
};
// Pages from files may have no storage.
const remembered = {
    get: () => { try { return localStorage.getItem("mpbench-theme"); } catch { return null; } },
    set: theme => { try { localStorage.setItem("mpbench-theme", theme); } catch { /* not kept */ } },
};
setTheme(themes.includes(remembered.get()) ? remembered.get() : "auto");
themeButton.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
    setTheme(next);
    remembered.set(next);
});
document.querySelector("nav").append(themeButton);

// ---- tables: sort

const textOf = cell => cell.dataset.v ?? cell.textContent.trim();
const numberOf = text =>
    text === "inf" ? Infinity : text === "-inf" ? -Infinity : text === "" ? NaN : Number(text);
const texts = new Intl.Collator("en", {numeric: true});

// What has no number comes last, whichever way the others go.
const compareNumbers = (a, b, sign) => {
    const x = numberOf(a), y = numberOf(b);
    if (Number.isNaN(x) || Number.isNaN(y))
        return Number.isNaN(x) - Number.isNaN(y);
    return x === y ? 0 : sign * (x < y ? -1 : 1);
};

const sortBy = (table, heading) => {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    const sign = descending ? -1 : 1, column = heading.cellIndex, body = table.tBodies[0];
    const compare = heading.dataset.sort === "n" ? compareNumbers
                                                 : (a, b) => sign * texts.compare(a, b);
    for (const other of heading.parentNode.cells)
        other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...[...body.rows].sort(
        (a, b) => compare(textOf(a.cells[column]), textOf(b.cells[column]), sign)));
    say(`Sorted by ${heading.textContent}, ${descending ? "descending" : "ascending"}.`);
};

const addSort = table => {
    for (const heading of table.querySelectorAll("th[data-sort]")) {
        const button = el("button", {type: "button"}, ...heading.childNodes);
        heading.append(button);
        button.addEventListener("click", () => sortBy(table, heading));
    }
};

// ---- filters: a search field, and a choice for each column of few different texts

// Of a long list only the beginning is shown, until all is asked for or something is searched.
const addTools = (before, name, items, noun, choices, few) => {
    const all = el("button", {type: "button", class: "all"}, `Show all ${items.length} ${noun}`);
    const search = el("input", {type: "search", "aria-label": `Filter ${name}`, placeholder: "Filter"});
    const output = el("output");
    const selects = choices.map(([label, read]) => {
        const values = [...new Set(items.map(read))].sort(texts.compare);
        return {label, read, values, select: el("select", {},
            el("option", {value: ""}, "all"), ...values.map(value => el("option", {value}, value)))};
    }).filter(({values}) => values.length > 1);
    const apply = () => {
        const wanted = search.value.trim().toLowerCase();
        const searching = wanted || selects.some(({select}) => select.value);
        let shown = 0;
        for (const item of items) {
            item.hidden = !item.textContent.toLowerCase().includes(wanted) ||
                selects.some(({select, read}) => select.value && read(item) !== select.value);
            shown += !item.hidden;
        }
        before.classList.toggle("few", few && !searching && !all.hidden);
        output.textContent = `${shown} of ${items.length} ${noun}`;
    };
    const showAll = () => {
        all.hidden = true;
        apply();
    };
    const clear = () => {
        search.value = "";
        selects.forEach(({select}) => { select.value = ""; });
        showAll();
    };
    before.before(el("div", {class: "tools"}, search,
        ...selects.map(({label, select}) => el("label", {}, label, select)), output));
    search.addEventListener("input", apply);
    selects.forEach(({select}) => select.addEventListener("change", apply));
    items.forEach(item => clears.set(item, clear));
    if (few && items.length > 12) { // as in the style sheet
        before.after(all);
        all.addEventListener("click", () => {
            showAll();
            items[12].querySelector("a, summary").focus();
        });
    }
    apply();
};
const clears = new Map(); // of each item that a filter may hide

for (const table of document.querySelectorAll("table[data-tools]")) {
    addSort(table);
    const choices = [...table.querySelectorAll("th[data-choice]")].map(
        heading => [heading.textContent, row => row.cells[heading.cellIndex].textContent.trim()]);
    const section = table.closest("section");
    if (table.tBodies[0].rows.length > 1)
        addTools(table.closest(".wide"), section.querySelector("h2").textContent.toLowerCase(),
            [...table.tBodies[0].rows], "rows", choices, false);
}

// ---- commands: a button that copies

const copy = async code => {
    try {
        await navigator.clipboard.writeText(code.textContent);
    } catch { // not allowed here: as people do it
        getSelection().selectAllChildren(code);
        if (!document.execCommand("copy"))
            return say("Not copied; the command is selected.");
    }
    say("Copied.");
};
for (const command of document.querySelectorAll(".command")) {
    const button = el("button", {type: "button", "aria-label": "Copy the command"}, "Copy");
    button.addEventListener("click", () => copy(command.firstChild));
    command.append(button);
}

// ---- names

const machineOf = cell => cell.machine ? ` on ${cell.machine}` : "";
const placeOf = cell => `${cell.engine}/${cell.device}${machineOf(cell)}`;
const nameOf = cell => `${cell.scenario}/${cell.name}`;
const digits = (value, n) => value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(n - 1)
                                                                      : String(Number(value.toPrecision(n)));
const short = value => typeof value === "number" ? digits(value, 4) : value ?? "no value";
const replaceNote = (id, text) => {
    const section = document.getElementById(id), note = section.querySelector(".script");
    if (text)
        note.textContent = text;
    else
        note.remove();
    return section;
};

// ---- pictures: the reference on the left of the slider, the output on its right

const image = (pair, role) => el("img", {
    src: `data:image/png;base64,${data.pictures.images[pair[role]]}`,
    width: pair.width, height: pair.height,
    alt: `${role === "output" ? "Output" : "Reference"} of ${nameOf(pair)}, ${placeOf(pair)}`});

const addSlider = (figure, box, output) => {
    const edge = el("div", {class: "edge"});
    const slider = el("input", {type: "range", min: 0, max: 100, value: 50,
        "aria-label": "Share of the width that shows the reference"});
    const difference = el("input", {type: "checkbox"});
    const move = () => {
        output.style.clipPath = difference.checked ? "none" : `inset(0 0 0 ${slider.value}%)`;
        edge.style.left = `${slider.value}%`;
        slider.setAttribute("aria-valuetext", `${slider.value} % reference`);
    };
    slider.addEventListener("input", move);
    difference.addEventListener("change", () => {
        box.classList.toggle("apart", difference.checked);
        slider.disabled = difference.checked;
        move();
    });
    box.append(edge);
    figure.append(
        el("div", {class: "slide"}, el("span", {}, "reference"), slider, el("span", {}, "output")),
        el("label", {class: "check"}, difference, "difference, 8 times brighter"));
    move();
};

const figureOf = pair => {
    const output = image(pair, "output");
    const same = pair.output === pair.reference, alone = !pair.reference || same;
    const box = el("div", {class: "pair"}, ...(alone ? [output] : [image(pair, "reference"), output]));
    const figure = el("figure", {}, box);
    if (!alone)
        addSlider(figure, box, output);
    figure.append(el("figcaption", {},
        el("a", {href: `#cell-${pair.cell}`}, pair.scenario),
        el("small", {}, `${pair.name} ${placeOf(pair)}`),
        el("small", {}, same ? "the same as its reference, pixel for pixel"
            : pair.reference ? `PSNR ${short(pair.psnr)} dB, drift ${short(pair.drift)}`
            : "no reference")));
    return figure;
};

const showPictures = () => {
    const pairs = data.pictures.pairs;
    const section = replaceNote("pictures", pairs.length ? "" : "No pictures are on record for these cells.");
    if (!pairs.length)
        return;
    const figures = pairs.map(figureOf);
    const gallery = el("div", {class: "gallery"}, ...figures);
    section.append(
        el("p", {class: "empty"}, "Output and reference of each cell, those that went wrong or drifted most first. " +
            "Move the slider to lay one over the other."), gallery);
    if (pairs.length > 1)
        addTools(gallery, "pictures", figures, "pictures",
            [["Scenario", figure => figure.querySelector("a").textContent]], true);
};

// ---- charts

const size = {width: 360, height: 120, left: 56, right: 10, top: 16, bottom: 18};

const scaleOf = values => {
    const finite = values.filter(Number.isFinite);
    let low = Math.min(...finite), high = Math.max(...finite);
    if (!finite.length)
        return {low: NaN, high: NaN};
    const pad = high > low ? (high - low) * .08 : Math.abs(high) * .05 || 1;
    const bottom = low - pad, range = high + pad - bottom;
    const height = size.height - size.top - size.bottom;
    return {low, high, y: value => size.top + height * (1 - (value - bottom) / range)};
};

// Runs of neighbours that all have a number: a gap stays a gap.
const pieces = values => {
    const all = [];
    values.forEach((value, i) => {
        if (!Number.isFinite(value))
            return;
        if (i && Number.isFinite(values[i - 1]))
            all[all.length - 1].push(i);
        else
            all.push([i]);
    });
    return all;
};

const dayOf = run => run[1].slice(0, 10);
const runText = run => `run ${run[0]}, ${run[1]}${run[2] ? `, ${run[2].slice(0, 12)}` : ""}`;
const markText = mark => `${mark.open ? "open: " : ""}${mark.kind}, ${mark.is}`;

const drawMarks = (marks, x, picture) => {
    marks.forEach((mark, k) => {
        const open = mark.open ? " open" : "", at = x(mark.at) - 2;
        picture.append(svg("line", {class: `mark${open}`, x1: at, x2: at, y1: size.top - 2,
            y2: size.height - size.bottom}, svg("title", {}, `${markText(mark)}, ${mark.state}`)));
        if (k === marks.length - 1) // one label: they would lie over each other
            picture.append(svg("text", {class: `label${open}`, y: 10, x: at,
                "text-anchor": at > size.width / 2 ? "end" : "start"}, markText(mark)));
    });
};

const drawLine = (values, runs, x, y, unit, picture) => {
    const points = svg("g", {class: values.length > 40 ? "dense" : ""});
    for (const piece of pieces(values))
        picture.append(svg("polyline", {class: "trace",
            points: piece.map(i => `${x(i).toFixed(1)},${y(values[i]).toFixed(1)}`).join(" ")}));
    values.forEach((value, i) => {
        const title = svg("title", {}, `${short(value)} ${unit}, ${runText(runs[i])}`);
        if (Number.isFinite(value))
            points.append(svg("circle", {cx: x(i).toFixed(1), cy: y(value).toFixed(1), r: 3}, title));
        else if (value !== null) // inf, nan
            points.append(svg("path", {class: `beyond ${value}`,
                d: `M${x(i) - 3} ${size.top}l6 6m0 -6l-6 6`}, title));
    });
    picture.append(points);
};

const drawAxes = (scale, runs, picture) => {
    const {left, right, bottom, width, height} = size, floor = height - bottom;
    const label = (value, y) => svg("text", {x: left - 6, y: y + 4, "text-anchor": "end"},
        digits(value, 3));
    picture.append(svg("line", {class: "grid", x1: left, x2: width - right, y1: floor, y2: floor}),
        svg("text", {x: left, y: height - 4}, dayOf(runs[0])));
    if (Number.isFinite(scale.high))
        picture.append(label(scale.high, scale.y(scale.high)));
    if (scale.high > scale.low)
        picture.append(label(scale.low, scale.y(scale.low)));
    if (runs.length > 1)
        picture.append(svg("text", {x: width - right, y: height - 4, "text-anchor": "end"},
            dayOf(runs[runs.length - 1])));
};

const valueTable = (line, runs, marks, failed, label) => {
    const body = el("tbody");
    runs.forEach((run, i) => {
        const said = marks.filter(mark => mark.at === i).map(markText).concat(failed.get(i) ?? []);
        body.append(el("tr", {}, el("th", {scope: "row"}, run[0]), el("td", {}, run[1]),
            el("td", {}, el("code", {}, run[2].slice(0, 12))),
            el("td", {class: "n"}, short(line.values[i])), el("td", {}, said.join("; "))));
    });
    return el("div", {class: "wide", tabindex: "0", role: "region", "aria-label": label},
        el("table", {}, el("thead", {}, el("tr", {}, ...["Run", "Started (UTC)", "Commit", "Value", "Change"]
            .map(head => el("th", {scope: "col"}, head)))), body));
};

const chartOf = (subject, line) => {
    const runs = subject.runs.map(i => data.runs[i]), failed = new Map(subject.failed);
    const measured = ["s", "MiB"].includes(line.unit); // other bits say nothing about those
    const marks = [...line.marks, ...subject.marks.filter(mark => !measured || mark.kind === "outcome")]
        .sort((a, b) => a.at - b.at);
    const unit = line.unit === "1" ? "" : line.unit, newest = line.values[line.values.length - 1];
    const wide = size.width - size.left - size.right, last = runs.length - 1;
    const x = i => size.left + (last ? wide * i / last : wide / 2), scale = scaleOf(line.values);
    const range = Number.isFinite(scale.low) ? `from ${short(scale.low)} to ${short(scale.high)} ${unit}` : "no finite value";
    const said = `${line.metric} over ${runs.length} runs, ${range}, newest ${short(newest)}${marks.map(mark => `; ${markText(mark)} at ${runText(runs[mark.at])}`).join("")}`;
    const picture = svg("svg", {viewBox: `0 0 ${size.width} ${size.height}`, role: "img", "aria-label": said});
    const details = el("details", {}, el("summary", {}, "Values"));
    drawAxes(scale, runs, picture);
    drawMarks(marks, x, picture);
    drawLine(line.values, runs, x, scale.y, unit, picture);
    details.addEventListener("toggle", () => {
        if (details.open && !details.querySelector("table"))
            details.append(valueTable(line, runs, marks, failed, `Values of ${line.metric}`));
    });
    return el("figure", {class: "chart"}, el("figcaption", {},
        el("b", {}, line.metric), el("span", {}, newest === null ? "no value" : `${short(newest)} ${unit}`)), picture, details);
};

const order = ["latent_rel_l2", "image_rel_l2", "psnr_db", "ssim", "seam", "seconds", "peak_mib"];
const placeOfMetric = ({metric}) => order.includes(metric) ? order.indexOf(metric) : order.length;

const seriesOf = subject => {
    const marks = [...subject.marks, ...subject.lines.flatMap(line => line.marks)];
    const open = marks.filter(mark => mark.open).length;
    const details = el("details", {class: "cell-series", id: `series-${subject.cell}`},
        el("summary", {}, nameOf(subject), el("small", {}, placeOf(subject) +
            `, ${subject.runs.length} ${subject.runs.length === 1 ? "run" : "runs"}` +
            (open ? `, ${open} open` : marks.length ? `, ${marks.length} changes` : ""))));
    details.dataset.open = open;
    details.dataset.scenario = subject.scenario;
    details.addEventListener("toggle", () => {
        if (details.open && !details.querySelector(".charts"))
            details.append(el("div", {class: "charts"}, ...subject.lines.sort((a, b) => placeOfMetric(a) - placeOfMetric(b)).map(line => chartOf(subject, line))));
    });
    return details;
};

const showSeries = () => {
    const section = replaceNote("series", data.series.length ? "" : "No cell has ended yet, so there is nothing to draw.");
    if (!data.series.length)
        return;
    const all = data.series.map(seriesOf).sort((a, b) => b.dataset.open - a.dataset.open);
    const list = el("div", {}, ...all);
    section.append(
        el("p", {class: "empty"}, "Each cell over the runs of its machine, oldest on the left; cells with open findings first. " +
            "Vertical lines are findings."), list);
    if (all.length > 1)
        addTools(list, "series", all, "cells", [["Scenario", item => item.dataset.scenario]], true);
    all.slice(0, 3).forEach((details, i) => { // what must be seen, or at least one
        details.open = !i || details.dataset.open > 0;
    });
};

// ---- links: what they lead to is not left hidden or closed

const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target)
        return;
    if (target.hidden || target.parentNode.classList.contains("few"))
        clears.get(target)();
    if (target.tagName === "DETAILS")
        target.open = true;
    target.scrollIntoView();
};

showPictures();
showSeries();
addEventListener("hashchange", reveal);
reveal();
})();
