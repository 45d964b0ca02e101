#include <string.h>
#include <sys/stat.h>

#include "kernels/core/memory.h"
#include "pipelines/common/config.h"
#include "pipelines/common/file.h"
#include "pipelines/common/json.h"
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

/* model_index.json, open, and its name for messages. */
typedef struct model_index {
    char *path;
    json_t *file;
} model_index;

static void close_index(model_index *x)
{
    json_decref(x->file);
    mp_free(x->path);
}

static mp_code open_index(const mp_request *r, model_index *out, mp_error *err)
{
    struct stat st;

    *out = (model_index){0};
    if (stat(r->checkpoint, &st) || !S_ISDIR(st.st_mode))
        return mp_error_set(err, MP_EMISSING,
                            "%s: no such folder; expected a checkpoint in Diffusers' layout, with "
                            "its model_index.json",
                            r->checkpoint);
    out->path = mp_file_join(r->checkpoint, "model_index.json");
    return out->path ? mp_json_load(out->path, &out->file, err) : no_memory(err);
}

/* The class in an entry [library, class]; NULL where there is no entry, or null or [null, null]: a
 * component that is left out. */
static mp_code read_class(const model_index *x, const char *component, const char **out,
                          mp_error *err)
{
    const json_t *const entry = json_object_get(x->file, component);
    const json_t *const class = json_array_get(entry, 1);
    char found[200];

    *out = json_string_value(class);
    if (*out || !entry || json_is_null(entry) || json_is_null(class))
        return MP_OK;
    return mp_error_set(err, MP_EFORMAT, "%s: \"%s\": expected [\"library\", \"class\"], found %s",
                        x->path, component, mp_json_describe(entry, found, sizeof found));
}

static void check_class(const model_index *x, const char *component, const char *wanted,
                        bool optional, mp_error *err)
{
    const char *found;

    if (err->code || read_class(x, component, &found, err) || (!found && optional))
        return;
    if (!found)
        mp_error_set(err, MP_EMISSING, "%s: no \"%s\"; a Stable Diffusion 3 checkpoint has one",
                     x->path, component);
    else if (strcmp(found, wanted) != 0)
        mp_error_set(err, MP_EUNSUPPORTED, "%s: \"%s\" is a %.60s; this pipeline runs %s", x->path,
                     component, mp_plain(found).text, wanted);
}

static mp_code check_index(const mp_request *r, bool *has_t5, mp_error *err)
{
    model_index x;

    if (open_index(r, &x, err)) {
        close_index(&x);
        return err->code;
    }
    const char *const name = json_string_value(json_object_get(x.file, "_class_name"));
    if (!name || strcmp(name, "StableDiffusion3Pipeline") != 0)
        mp_error_set(err, MP_EUNSUPPORTED,
                     "%s: the checkpoint is of a \"%.60s\"; the pipeline sd3 runs "
                     "StableDiffusion3Pipeline",
                     x.path, mp_plain(name ? name : "").text);
    check_class(&x, "text_encoder", "CLIPTextModelWithProjection", false, err);
    check_class(&x, "text_encoder_2", "CLIPTextModelWithProjection", false, err);
    check_class(&x, "text_encoder_3", "T5EncoderModel", true, err);
    check_class(&x, "transformer", "SD3Transformer2DModel", false, err);
    check_class(&x, "vae", "AutoencoderKL", false, err);
    check_class(&x, "scheduler", "FlowMatchEulerDiscreteScheduler", false, err);
    close_index(&x);
    return err->code ? err->code : mp_sd3_has(r, "text_encoder_3", has_t5, err);
}

mp_code mp_sd3_has(const mp_request *r, const char *component, bool *out, mp_error *err)
{
    model_index x;
    const char *class = NULL;

    if (!open_index(r, &x, err))
        read_class(&x, component, &class, err);
    *out = class != NULL;
    close_index(&x);
    return err->code;
}

/* The weight files of a component exist and their headers are sound; a survey needs none. */
static mp_code check_weights(const mp_request *r, const char *component, const char *stem,
                             mp_error *err)
{
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

static mp_code check_encoders(const mp_request *r, const mp_sd3_config *o, bool has_t5,
                              mp_error *err)
{
    static const char *const clips[MP_SD3_CLIPS] = {"text_encoder", "text_encoder_2"};
    const int64_t clip_skip = number(r, "clip_skip");
    int64_t hidden = 0, pooled = 0, width = o->joint_attention_dim;

    for (int i = 0; i < MP_SD3_CLIPS; i++) {
        int64_t size, projection, layers;
        if (mp_config_int_of(r->checkpoint, clips[i], "hidden_size", 512, &size, err) ||
            mp_config_int_of(r->checkpoint, clips[i], "projection_dim", 512, &projection, err) ||
            mp_config_int_of(r->checkpoint, clips[i], "num_hidden_layers", 12, &layers, err))
            return err->code;
        if (clip_skip >= layers)
            return mp_error_set(
                err, MP_EUSAGE, "clip_skip: found %lld, expected 0..%lld: %s has %lld layers",
                (long long)clip_skip, (long long)layers - 1, clips[i], (long long)layers);
        hidden += size;
        pooled += projection;
    }
    if (has_t5 && mp_config_int_of(r->checkpoint, "text_encoder_3", "d_model", 512, &width, err))
        return err->code;
    if (pooled != o->pooled_projection_dim)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: the transformer reads pooled texts of %lld channels "
                            "(pooled_projection_dim), text_encoder and text_encoder_2 give %lld "
                            "(projection_dim); fetch all parts of one version",
                            r->checkpoint, (long long)o->pooled_projection_dim, (long long)pooled);
    if (width != o->joint_attention_dim)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: the transformer reads texts of %lld channels "
                            "(joint_attention_dim), text_encoder_3 gives %lld (d_model); fetch all "
                            "parts of one version",
                            r->checkpoint, (long long)o->joint_attention_dim, (long long)width);
    if (hidden > width)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: the transformer reads texts of %lld channels "
                            "(joint_attention_dim), text_encoder and text_encoder_2 give %lld "
                            "(hidden_size); fetch all parts of one version",
                            r->checkpoint, (long long)width, (long long)hidden);
    return MP_OK;
}

static mp_code check_tokenizers(const mp_request *r, bool has_t5, mp_error *err)
{
    static const char *const names[] = {"tokenizer", "tokenizer_2", "tokenizer_3"};

    for (int i = 0; i < (has_t5 ? 3 : 2); i++) {
        char *const dir = mp_file_join(r->checkpoint, names[i]);
        const mp_code code = dir ? mp_tokenizer_check(dir, err) : no_memory(err);
        mp_free(dir);
        if (code)
            return code;
    }
    return MP_OK;
}

static mp_code check_scheduler(const mp_request *r, mp_error *err)
{
    mp_flow_match_euler *scheduler = NULL;
    char *const dir = mp_file_join(r->checkpoint, "scheduler");

    if (!dir)
        return no_memory(err);
    if (!mp_flow_match_euler_open(dir, &scheduler, err))
        mp_flow_match_euler_close(scheduler);
    mp_free(dir);
    return err->code;
}

/* The pipeline's proposal, but for its 0 below the first multiple. */
static long long proposal(int64_t size, int64_t multiple)
{
    return size < multiple ? multiple : size - size % multiple;
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
                            proposal(height, multiple), proposal(width, multiple));
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
        check_skips(r, err) || check_encoders(r, &transformer, has_t5, err) ||
        check_tokenizers(r, has_t5, err) || check_scheduler(r, err) ||
        check_weights(r, "text_encoder", "model", err) ||
        check_weights(r, "text_encoder_2", "model", err) ||
        (has_t5 && check_weights(r, "text_encoder_3", "model", err)) ||
        check_weights(r, "transformer", "diffusion_pytorch_model", err))
        return err->code;
    return check_weights(r, "vae", "diffusion_pytorch_model", err);
}
