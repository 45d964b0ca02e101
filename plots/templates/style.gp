# Colours and lines that all plots share: Okabe and Ito's, which colour-blind readers tell apart.
set linetype 1 lc rgb "#0072b2" lw 1.5 pt 7 ps 0.5
set linetype 2 lc rgb "#d55e00" lw 1.5 pt 5 ps 0.5
set linetype 3 lc rgb "#009e73" lw 1.5 pt 9 ps 0.6
set linetype 4 lc rgb "#cc79a7" lw 1.5 pt 11 ps 0.6
set linetype 5 lc rgb "#e69f00" lw 1.5 pt 13 ps 0.6
set linetype 6 lc rgb "#56b4e9" lw 1.5 pt 4 ps 0.6
set grid lc rgb "#e0e0e0" lw 1 dt 1
set border 3
set tics nomirror
set linetype cycle 6
set tics scale 0.6
set title font ',12'
set encoding utf8
set decimalsign '.'
set datafile separator tab

# The i-th of many lines, from 1: colours first, then dashes; filled and hollow shapes.
colour(i) = (i - 1) % 6 + 1
dash(i) = (i - 1) / 6 + 1
shape(i) = word('7 5 9 11 13', (i - 1) % 5 + 1) + 0
hollow(i) = word('6 4 8 10 12', (i - 1) % 5 + 1) + 0

# A key of so many rows at the bottom, below an axis with its label; in pixels and as screen places.
key_height(rows) = 16.0 + 18 * rows
bottom_above_key(rows) = (key_height(rows) + 56) / height
key_top(rows) = (key_height(rows) - 6) / height
