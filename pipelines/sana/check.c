#include <string.h>
#include <sys/stat.h>

#include "kernels/core/memory.h"
#include "pipelines/common/config.h"
#include "pipelines/common/file.h"
#include "pipelines/common/tiling.h"
#include "pipelines/common/weights_files.h"
#include "pipelines/sana/resolution_bins.h"
#include "pipelines/sana/sana.h"

static int64_t number(const mp_request *r, const char *name)
{
    return (int64_t)mp_request_input(r, name)->number;
}

static mp_code no_memory(mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "no memory for the name of a file");
}

static mp_code check_quirks(const mp_request *r, mp_error *err)
{
    for (const char *const *q = r->quirks; q && *q; q++)
        if (strcmp(*q, mp_sana_quirk_quadratic))
            return mp_error_set(err, MP_EUSAGE, "quirks: sana has no quirk \"%.60s\"; it has: %s",
                                *q, mp_sana_quirk_quadratic);
    return MP_OK;
}

/* One entry of model_index.json: [library, class]. */
static mp_code check_class(mp_config *j, const char *component, const char *wanted,
                           const char *also, mp_error *err)
{
    const char *names[2];

    if (!mp_config_has(j, component))
        return mp_error_set(err, MP_EMISSING, "%s: no \"%s\"; a Sana checkpoint has one",
                            mp_config_path(j), component);
    if (mp_config_strings(j, component, names, 2, "", err))
        return err->code;
    if (strcmp(names[1], wanted) && (!also || strcmp(names[1], also)))
        return mp_error_set(err, MP_EUNSUPPORTED, "%s: \"%s\" is a %.60s; this pipeline runs %s",
                            mp_config_path(j), component, mp_plain(names[1]).text, wanted);
    return MP_OK;
}

static mp_code check_index(const mp_request *r, mp_error *err)
{
    mp_config *j = NULL;
    struct stat st;

    if (stat(r->checkpoint, &st) || !S_ISDIR(st.st_mode))
        return mp_error_set(err, MP_EMISSING,
                            "%s: no such folder; expected a checkpoint in Diffusers' layout, with "
                            "its model_index.json",
                            r->checkpoint);
    if (mp_config_open(r->checkpoint, "model_index.json", &j, err))
        return err->code;
    const char *const name = mp_config_string(j, "_class_name", "", err);
    if (strcmp(name, "SanaPipeline"))
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: the checkpoint is of a \"%.60s\"; the pipeline sana runs SanaPipeline",
                     mp_config_path(j), mp_plain(name).text);
    check_class(j, "text_encoder", "Gemma2Model", "Gemma2ForCausalLM", err);
    check_class(j, "transformer", "SanaTransformer2DModel", NULL, err);
    check_class(j, "vae", "AutoencoderDC", NULL, err);
    check_class(j, "scheduler", "DPMSolverMultistepScheduler", NULL, err);
    mp_config_close(j);
    return err->code;
}

/* The weight files of a component exist and their headers are sound; a survey needs none. */
static mp_code check_weights(const mp_request *r, const char *component, const char *stem,
                             mp_error *err)
{
    /* Not every component has the variant of the others. */
    const char *const variant = mp_request_weights(r, component, stem).variant;
    mp_weight_files files = {0};
    char *const dir = mp_file_join(r->checkpoint, component);

    if (!dir)
        return no_memory(err);
    if (!r->survey && !mp_weight_files_open(dir, stem, variant, &files, err))
        mp_weight_files_close(&files);
    mp_free(dir);
    return err->code;
}

static mp_code check_scheduler(const mp_request *r, mp_error *err)
{
    mp_dpmsolver *scheduler = NULL;
    char *const dir = mp_file_join(r->checkpoint, "scheduler");

    if (!dir)
        return no_memory(err);
    if (!mp_dpmsolver_open(dir, &scheduler, err))
        mp_dpmsolver_close(scheduler);
    mp_free(dir);
    return err->code;
}

static mp_code read_configs(const mp_request *r, mp_sana_config *transformer, int64_t *factor,
                            mp_error *err)
{
    char *const transformer_dir = mp_file_join(r->checkpoint, "transformer");
    char *const vae_dir = mp_file_join(r->checkpoint, "vae");

    if (!transformer_dir || !vae_dir)
        no_memory(err);
    else if (!mp_sana_config_read(transformer_dir, transformer, err))
        mp_autoencoder_dc_compression_of(vae_dir, factor, err);
    mp_free(transformer_dir);
    mp_free(vae_dir);
    return err->code;
}

static mp_code check_models(const mp_request *r, const mp_sana_config *o, mp_error *err)
{
    int64_t hidden = 0, latent = 0;

    if (mp_config_int_of(r->checkpoint, "text_encoder", "hidden_size", 2304, &hidden, err) ||
        mp_config_int_of(r->checkpoint, "vae", "latent_channels", 32, &latent, err))
        return err->code;
    if (o->guidance_embeds)
        return mp_error_set(err, MP_EUNSUPPORTED,
                            "%s/transformer/config.json: \"guidance_embeds\" is true: this is a "
                            "Sana Sprint model, to which SanaPipeline gives no guidance",
                            r->checkpoint);
    if (hidden != o->caption_channels)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: the transformer reads captions of %lld channels "
                            "(caption_channels), the text encoder gives %lld (hidden_size); "
                            "fetch all parts of one version",
                            r->checkpoint, (long long)o->caption_channels, (long long)hidden);
    if (latent != o->in_channels)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: the transformer makes latents of %lld channels (in_channels), the "
                            "autoencoder reads %lld (latent_channels); fetch all parts of one "
                            "version",
                            r->checkpoint, (long long)o->in_channels, (long long)latent);
    if (o->out_channels != o->in_channels && o->out_channels / 2 != o->in_channels)
        return mp_error_set(err, MP_EFORMAT,
                            "%s/transformer/config.json: %lld output channels are neither the %lld "
                            "latent channels nor twice as many",
                            r->checkpoint, (long long)o->out_channels, (long long)o->in_channels);
    return MP_OK;
}

static mp_code check_size(const mp_request *r, const mp_sana_config *o, int64_t factor,
                          mp_error *err)
{
    int64_t height = number(r, "height"), width = number(r, "width");

    if (number(r, "use_resolution_binning")) {
        if (!mp_sana_bin(o->sample_size, &height, &width))
            return mp_error_set(err, MP_EUSAGE,
                                "Invalid sample size: the transformer's sample_size %lld has no "
                                "resolution bins (16, 32, 64 and 128 have); set "
                                "use_resolution_binning: false",
                                (long long)o->sample_size);
    } else if (height % 32 || width % 32) {
        return mp_error_set(err, MP_EUSAGE,
                            "`height` and `width` have to be divisible by 32 but are %lld and "
                            "%lld.  Use %lld and %lld",
                            (long long)height, (long long)width, (long long)(height + 31) / 32 * 32,
                            (long long)(width + 31) / 32 * 32);
    }
    if (height / factor % o->patch_size || width / factor % o->patch_size || height < factor ||
        width < factor)
        return mp_error_set(err, MP_EUSAGE,
                            "`height` and `width` (%lld and %lld) have to be divisible by %lld: "
                            "the autoencoder compresses by %lld, and a patch is %lld latent pixels",
                            (long long)height, (long long)width,
                            (long long)(factor * o->patch_size), (long long)factor,
                            (long long)o->patch_size);
    return mp_tiling_check(&r->tiling, factor, err);
}

mp_code mp_sana_check(const mp_request *r, mp_error *err)
{
    mp_sana_config transformer;
    int64_t factor = 32;

    if (check_quirks(r, err))
        return err->code;
    if (number(r, "clean_caption"))
        return mp_error_set(err, MP_EUNSUPPORTED,
                            "clean_caption: the native engine does not clean captions (Diffusers "
                            "needs ftfy and BeautifulSoup for it); clean the prompt beforehand and "
                            "leave clean_caption false");
    if (check_index(r, err) || read_configs(r, &transformer, &factor, err) ||
        check_models(r, &transformer, err) || check_size(r, &transformer, factor, err) ||
        check_scheduler(r, err) || check_weights(r, "text_encoder", "model", err) ||
        check_weights(r, "transformer", "diffusion_pytorch_model", err))
        return err->code;
    return check_weights(r, "vae", "diffusion_pytorch_model", err);
}
