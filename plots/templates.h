/* The files that plots and pages are made from: the folder plots/templates, inside the program. */
#ifndef MP_PLOTS_TEMPLATES_H
#define MP_PLOTS_TEMPLATES_H

typedef struct mp_template_file {
    const char *path; /* "style.gp" */
    const char *text;
} mp_template_file;

/* Made from the folder; ends with {0}. */
extern const mp_template_file mp_template_files[];

/* NULL: there is none of that name. */
const char *mp_template_text(const char *path);

#endif
