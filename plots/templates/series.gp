# Metrics over the runs.  panelN.tsv: a block for each cell, with its label over the second column;
# run, where it is drawn, what was measured.  marksN.tsv: blocks for what became worse, what is other
# and what became better; run, height of the text, text.  runs.tsv: run, time, commit.
load 'settings.gp'
load 'style.gp'

setting(n, part) = value('panel'.n.'_'.part)
title_room = 40.0
key_room = key_height(key_rows)
panel_height = (1 - (title_room + key_room) / height) / rows
thin = runs > 100 ? 0.8 : 1.5
small = runs > 100 ? 0.1 : 0.4
# Of marks: worse, neither, better.  No cell's line has them.
array kinds[3] = ['#8b1a1a', '#505050', '#14532d']

set multiplot
set label 1 heading.': '.runs.' runs' at screen 0.5, screen 1 offset 0,-1.2 center font ',12'
set y2range [0:1]
set xrange [0.5:runs + 0.5]
unset key
do for [n=1:panels] {
    left = real((n - 1) % columns) / columns
    bottom = key_room / height + (rows - 1 - (n - 1) / columns) * panel_height
    set lmargin at screen left + 90.0 / width
    set rmargin at screen left + 1.0 / columns - 20.0 / width
    set bmargin at screen bottom + 48.0 / height
    set tmargin at screen bottom + panel_height - 26.0 / height
    set title setting(n, 'title') font ',11' offset 0,-0.6
    unset logscale y
    set format y '%.6g'
    set ytics autofreq
    if (setting(n, 'log')) {
        set logscale y
        set format y '1e%T'
    } else {
        set ytics setting(n, 'first'), setting(n, 'step'), setting(n, 'last')
    }
    set yrange [setting(n, 'low'):setting(n, 'high')]
    if (setting(n, 'zero') == setting(n, 'zero')) { set ytics add ('0' setting(n, 'zero')) }
    if (setting(n, 'above') == setting(n, 'above')) { set ytics add ('inf, NaN' setting(n, 'above')) }
    points = 'panel'.n.'.tsv'
    marks = 'marks'.n.'.tsv'
    plot for [k=1:3] marks index k-1 skip 1 using 1:(1) axes x1y2 \
            with impulses linecolor rgb kinds[k] linewidth 1.2 dashtype 2, \
        for [i=1:cells] points index i-1 skip 1 using 1:2 \
            with linespoints linetype colour(i) dashtype dash(i) linewidth thin pointtype shape(i) pointsize small, \
        for [k=1:3] marks index k-1 skip 1 using ($1 < 0.7 * runs ? $1 : NaN):2:3 axes x1y2 \
            with labels left offset 0.3,0 font ',9' textcolor rgb kinds[k], \
        for [k=1:3] marks index k-1 skip 1 using ($1 < 0.7 * runs ? NaN : $1):2:3 axes x1y2 \
            with labels right offset -0.3,0 font ',9' textcolor rgb kinds[k], \
        'runs.tsv' using 1:(NaN):xtic(stringcolumn(2)."\n".stringcolumn(3))
    unset label 1
}

# The key of all panels.
unset border
unset tics
unset title
set lmargin at screen 0.02
set rmargin at screen 0.98
set bmargin at screen 0
set tmargin at screen key_room / height
set yrange [0:1]
unset logscale y
set key at screen 0.5, screen key_top(key_rows) center top horizontal maxcols key_columns Left reverse
plot for [i=1:cells] 'panel1.tsv' index i-1 using (NaN):(NaN) title columnheader(2) \
    with linespoints linetype colour(i) dashtype dash(i) pointtype shape(i) pointsize 0.6
unset multiplot
