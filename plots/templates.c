#include "plots/templates.h"

#include <stddef.h>
#include <string.h>

const char *mp_template_text(const char *path)
{
    for (const mp_template_file *f = mp_template_files; f->path; f++)
        if (!strcmp(f->path, path))
            return f->text;
    return NULL;
}
