# Drift by denoising step.  drift.tsv: a block for each cell, with its label over the second column;
# step, where it is drawn, what was measured (a zero and what is not finite have places of their own).
load 'settings.gp'
load 'style.gp'

set title heading.": drift of the latents\n".subheading
set xlabel 'denoising step'
set ylabel metric.' against the reference'
set bmargin at screen bottom_above_key(key_rows)
set key at screen 0.5, screen key_top(key_rows) center top horizontal maxcols key_columns Left reverse
set xtics 1
if (y_log) set logscale y; set format y '1e%T'
if (!y_log) set format y '%g'; set ytics y_first, y_step, y_last
set yrange [y_low:y_high]
if (y_zero == y_zero) set ytics add ('0' y_zero)
if (y_above == y_above) set ytics add ('inf, NaN' y_above)
set xrange [0.7:steps + 0.3]

plot for [i=1:cells] 'drift.tsv' index i-1 using 1:2 title columnheader(2) \
    with linespoints linetype colour(i) dashtype dash(i) pointtype shape(i) \
    linewidth 1.5 + 2.0 * (cells - i) / cells pointsize 0.5 + 0.8 * (cells - i) / cells
