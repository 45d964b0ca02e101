#include <string.h>
#include <sys/stat.h>

#include "kernels/core/memory.h"
#include "pipelines/common/config.h"
#include "pipelines/common/file.h"
#include "pipelines/common/weights_files.h"
#include "pipelines/sd3/sd3.h"

static int64_t number(const mp_request *r, const char *name)
{
    return (int64_t)mp_request_input(r, name)->number;
}

static mp_code no_memory(mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "no memory for the name of a file");
}

static mp_code open_index(const mp_request *r, mp_config **out, mp_error *err)
{
    struct stat st;

    if (stat(r->checkpoint, &st) || !S_ISDIR(st.st_mode))
        return mp_error_set(err, MP_EMISSING,
                            "%s: no such folder; expected a checkpoint in Diffusers' layout, with "
                            "its model_index.json",
                            r->checkpoint);
    return mp_config_open(r->checkpoint, "model_index.json", out, err);
}

/* One entry of model_index.json: [library, class], both null for a component that is left out. */
static mp_code read_entry(mp_config *j, const char *component, const char **out, mp_error *err)
{
    const char *names[2] = {NULL, NULL};

    *out = NULL;
    if (!mp_config_has(j, component))
        return MP_OK;
    if (mp_config_strings(j, component, names, 2, "", err))
        return err->code;
    *out = names[1] && *names[1] ? names[1] : NULL;
    return MP_OK;
}

static mp_code check_class(mp_config *j, const char *component, const char *wanted, bool optional,
                           mp_error *err)
{
    const char *found;

    if (err->code || read_entry(j, component, &found, err) || (!found && optional))
        return err->code;
    if (!found)
        return mp_error_set(err, MP_EMISSING,
                            "%s: no \"%s\"; a Stable Diffusion 3 checkpoint has one",
                            mp_config_path(j), component);
    if (strcmp(found, wanted) != 0)
        mp_error_set(err, MP_EUNSUPPORTED, "%s: \"%s\" is a %.60s; this pipeline runs %s",
                     mp_config_path(j), component, mp_plain(found).text, wanted);
    return err->code;
}

static mp_code check_index(const mp_request *r, bool *has_t5, mp_error *err)
{
    mp_config *j = NULL;
    const char *t5 = NULL;

    if (open_index(r, &j, err))
        return err->code;
    const char *const name = mp_config_string(j, "_class_name", "", err);
    if (strcmp(name, "StableDiffusion3Pipeline") != 0)
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: the checkpoint is of a \"%.60s\"; the pipeline sd3 runs "
                     "StableDiffusion3Pipeline",
                     mp_config_path(j), mp_plain(name).text);
    check_class(j, "text_encoder", "CLIPTextModelWithProjection", false, err);
    check_class(j, "text_encoder_2", "CLIPTextModelWithProjection", false, err);
    check_class(j, "text_encoder_3", "T5EncoderModel", true, err);
    check_class(j, "transformer", "SD3Transformer2DModel", false, err);
    check_class(j, "vae", "AutoencoderKL", false, err);
    check_class(j, "scheduler", "FlowMatchEulerDiscreteScheduler", false, err);
    if (!err->code)
        read_entry(j, "text_encoder_3", &t5, err);
    *has_t5 = t5 != NULL;
    mp_config_close(j);
    return err->code;
}

mp_code mp_sd3_has(const mp_request *r, const char *component, bool *out, mp_error *err)
{
    mp_config *j = NULL;
    const char *name = NULL;

    if (!open_index(r, &j, err))
        read_entry(j, component, &name, err);
    mp_config_close(j);
    *out = name != NULL;
    return err->code;
}

/* The weight files of a component exist and their headers are sound. */
static mp_code check_weights(const mp_request *r, const char *component, const char *stem,
                             mp_error *err)
{
    const char *const variant = mp_request_weights(r, component, stem).variant;
    mp_weight_files files = {0};
    char *const dir = mp_file_join(r->checkpoint, component);

    if (!dir)
        return no_memory(err);
    if (!mp_weight_files_open(dir, stem, variant, &files, err))
        mp_weight_files_close(&files);
    mp_free(dir);
    return err->code;
}

static mp_code read_configs(const mp_request *r, mp_sd3_config *transformer,
                            mp_autoencoder_kl_facts *vae, mp_error *err)
{
    char *const transformer_dir = mp_file_join(r->checkpoint, "transformer");
    char *const vae_dir = mp_file_join(r->checkpoint, "vae");

    if (!transformer_dir || !vae_dir)
        no_memory(err);
    else if (!mp_sd3_config_read(transformer_dir, transformer, err))
        mp_autoencoder_kl_facts_of(vae_dir, vae, err);
    mp_free(transformer_dir);
    mp_free(vae_dir);
    return err->code;
}

static mp_code check_models(const mp_request *r, const mp_sd3_config *o,
                            const mp_autoencoder_kl_facts *vae, mp_error *err)
{
    if (vae->latent_channels != o->in_channels || o->out_channels != o->in_channels)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: the transformer reads latents of %lld channels (in_channels) and "
                            "makes %lld (out_channels), the autoencoder has %lld "
                            "(latent_channels); fetch all parts of one version",
                            r->checkpoint, (long long)o->in_channels, (long long)o->out_channels,
                            (long long)vae->latent_channels);
    if (!vae->has_shift_factor)
        return mp_error_set(err, MP_EFORMAT,
                            "%s/vae/config.json: no shift_factor, which StableDiffusion3Pipeline "
                            "adds to the latents; this is another model's autoencoder",
                            r->checkpoint);
    return MP_OK;
}

static mp_code check_size(const mp_request *r, const mp_sd3_config *o,
                          const mp_autoencoder_kl_facts *vae, mp_error *err)
{
    const int64_t multiple = vae->compression * o->patch_size;
    const int64_t own = o->sample_size * vae->compression;
    const int64_t given_height = number(r, "height"), given_width = number(r, "width");
    const int64_t height = given_height ? given_height : own;
    const int64_t width = given_width ? given_width : own;
    const int64_t limit = o->pos_embed_max_size * multiple;

    if (height % multiple || width % multiple)
        return mp_error_set(err, MP_EUSAGE,
                            "`height` and `width` have to be divisible by %lld but are %lld and "
                            "%lld.You can use height %lld and width %lld.",
                            (long long)multiple, (long long)height, (long long)width,
                            (long long)(height - height % multiple),
                            (long long)(width - width % multiple));
    if (height > limit || width > limit)
        return mp_error_set(
            err, MP_EUSAGE,
            "`height` and `width` (%lld and %lld) are larger than the %lld that the "
            "table of positions allows (pos_embed_max_size %lld)",
            (long long)height, (long long)width, (long long)limit,
            (long long)o->pos_embed_max_size);
    return mp_autoencoder_kl_tiling_check(&r->tiling, vae->compression, err);
}

static mp_code check_skips(const mp_request *r, mp_error *err)
{
    const char *const *list = mp_request_input(r, "skip_guidance_layers")->list;
    int n = 0;

    while (list && list[n])
        n++;
    if (n > MP_SD3_MAX_SKIPPED)
        return mp_error_set(err, MP_EUSAGE, "skip_guidance_layers: %d layers, expected at most %d",
                            n, (int)MP_SD3_MAX_SKIPPED);
    return MP_OK;
}

mp_code mp_sd3_check(const mp_request *r, mp_error *err)
{
    mp_autoencoder_kl_facts vae;
    mp_sd3_config transformer;
    bool has_t5 = false;

    if (check_index(r, &has_t5, err) || read_configs(r, &transformer, &vae, err) ||
        check_models(r, &transformer, &vae, err) || check_size(r, &transformer, &vae, err) ||
        check_skips(r, err) || check_weights(r, "text_encoder", "model", err) ||
        check_weights(r, "text_encoder_2", "model", err) ||
        (has_t5 && check_weights(r, "text_encoder_3", "model", err)) ||
        check_weights(r, "transformer", "diffusion_pytorch_model", err))
        return err->code;
    return check_weights(r, "vae", "diffusion_pytorch_model", err);
}
