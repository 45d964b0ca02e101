# Seconds by stage.  stages.tsv: a block for each stage, with its name over the second column; row,
# and from where to where the stage goes in the row's bar.  cells.tsv: row, where its bar ends, label.
load 'settings.gp'
load 'style.gp'

key_rows = (stages + 5) / 6
set title heading.": seconds by stage\n".subheading
set xlabel 'seconds, median of the repeats'
set bmargin at screen bottom_above_key(key_rows)
set key at screen 0.5, screen key_top(key_rows) center top horizontal maxcols 6 Left reverse
set yrange [cells - 0.4:-0.6]
set xrange [0:*]
set offsets 0, graph 0.12, 0, 0
set ytics scale 0
unset grid
set grid x
set style fill solid 0.85 noborder

plot for [i=1:stages] 'stages.tsv' index i-1 using ($2 / 2 + $3 / 2):1:2:3:($1 - 0.34):($1 + 0.34) \
    title columnheader(2) with boxxyerror linetype colour(i), \
    'cells.tsv' using 2:1:(sprintf('%.3g s', $2)):ytic(3) notitle with labels left offset 0.6,0
