# cmake -DIN=file -DOUT=file.c -DNAME=symbol -P embed.cmake: a text file as a C string constant.
file(READ ${IN} text)
string(REPLACE "\\" "\\\\" text "${text}")
string(REPLACE "\"" "\\\"" text "${text}")
string(REPLACE "\n" "\\n\"\n    \"" text "${text}")
get_filename_component(from ${IN} NAME)
file(WRITE ${OUT} "/* Made from ${from}. */\nextern const char ${NAME}[];\nconst char ${NAME}[] =\n    \"${text}\";\n")
