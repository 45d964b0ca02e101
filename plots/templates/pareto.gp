# Drift against time and against memory.  pareto.tsv: a block for each cell, with its label over the
# second column; number, drift, seconds, 1 where another cell is better there, MiB, the same there, and
# for each panel the corner for the number: 1 and 2 above, right and left, 3 and 4 below.
# front.tsv: the cells that no other one beats, in order of cost; a block for each panel.
load 'settings.gp'
load 'style.gp'

unit_text(u) = u eq '1' || u eq '' ? '' : ', '.u
across(corner) = corner % 2 ? 1.2 : -1.2
down(corner) = corner <= 2 ? 0.6 : -0.6
set multiplot title heading.': what '.metric." costs (".subheading.")\nfilled: no other cell is better in both" \
    font ',12'
set ylabel metric.unit_text(unit).' ('.better.' is better)'
if (y_log) set logscale y; set format y '1e%T'
if (!y_log) set format y '%g'; set ytics y_first, y_step, y_last
set yrange [y_low:y_high]
if (y_zero == y_zero) set ytics add ('0' y_zero)
if (y_above == y_above) set ytics add ('inf, NaN' y_above)
set tmargin at screen 0.86
set bmargin at screen 0.13

panel = (width - 600.0) / 2
set lmargin at screen 90 / real(width)
set rmargin at screen (90 + panel) / width
set xlabel 'seconds (median)'
if (x1_log) set logscale x
if (!x1_log) set xtics x1_first, x1_step, x1_last
set xrange [x1_low:x1_high]
unset key
plot 'front.tsv' index 0 using 1:2 with steps linecolor rgb '#b0b0b0' dashtype 2, \
    for [i=1:cells] 'pareto.tsv' index i-1 skip 1 using 3:($4 == 0 ? $2 : NaN) \
        with points linetype colour(i) pointtype shape(i) pointsize 1.2, \
    for [i=1:cells] 'pareto.tsv' index i-1 skip 1 using 3:($4 == 1 ? $2 : NaN) \
        with points linetype colour(i) pointtype hollow(i) pointsize 1.2, \
    for [c=1:4] for [i=1:cells] 'pareto.tsv' index i-1 skip 1 using ($7 == c ? $3 : NaN):2:1 \
        with labels offset across(c), down(c) font ',9'

set lmargin at screen (190 + panel) / width
set rmargin at screen (190 + 2 * panel) / width
set xlabel 'peak memory, MiB'
unset logscale x
set xtics autofreq
if (x2_log) set logscale x
if (!x2_log) set xtics x2_first, x2_step, x2_last
set xrange [x2_low:x2_high]
set key at screen (205 + 2 * panel) / width, screen 0.87 left top Left reverse samplen 0.5 spacing 1.05 maxcols 1
plot 'front.tsv' index 1 using 1:2 with steps linecolor rgb '#b0b0b0' dashtype 2 notitle, \
    for [i=1:cells] 'pareto.tsv' index i-1 using 5:($6 == 0 ? $2 : NaN) title columnheader(2) \
        with points linetype colour(i) pointtype shape(i) pointsize 1.2, \
    for [i=1:cells] 'pareto.tsv' index i-1 skip 1 using 5:($6 == 1 ? $2 : NaN) notitle \
        with points linetype colour(i) pointtype hollow(i) pointsize 1.2, \
    for [c=1:4] for [i=1:cells] 'pareto.tsv' index i-1 skip 1 using ($8 == c ? $5 : NaN):2:1 notitle \
        with labels offset across(c), down(c) font ',9'
unset multiplot
