# Pictures side by side.  pictures.rgb: the whole grid, three bytes a pixel, from the upper left on.
# texts.tsv: across, down, text; labels and notes, then the heads of the columns.
load 'settings.gp'
load 'style.gp'

set title heading.": pictures\n".subheading
set lmargin at screen 0
set rmargin at screen 1
set bmargin at screen 0
set tmargin at screen (height - 62.0) / height
set size ratio -1
set xrange [0:grid_width]
set yrange [grid_height:0]
unset border
unset tics
unset grid
unset key
plot 'pictures.rgb' binary array=(grid_width,grid_height) format='%uchar' using 1:2:3 with rgbimage, \
    'texts.tsv' index 0 using 1:2:3 with labels left, \
    'texts.tsv' index 1 using 1:2:3 with labels center
