# Colours and lines that all plots share: Okabe and Ito's, which colour-blind readers tell apart.
set linetype 1 lc rgb "#0072b2" lw 1.5 pt 7 ps 0.5
set linetype 2 lc rgb "#d55e00" lw 1.5 pt 5 ps 0.5
set linetype 3 lc rgb "#009e73" lw 1.5 pt 9 ps 0.6
set linetype 4 lc rgb "#cc79a7" lw 1.5 pt 11 ps 0.6
set linetype 5 lc rgb "#e69f00" lw 1.5 pt 13 ps 0.6
set linetype 6 lc rgb "#56b4e9" lw 1.5 pt 4 ps 0.6
set grid lc rgb "#d0d0d0" lw 0.5
set border 3
set tics nomirror
