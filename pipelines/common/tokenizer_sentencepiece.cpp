#include <new>
#include <string>
#include <vector>

#include <sentencepiece_processor.h>

extern "C" {
#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "pipelines/common/tokenizer_sentencepiece.h"
}

struct mp_sentencepiece {
    sentencepiece::SentencePieceProcessor processor;
    std::string path;
};

namespace
{
constexpr size_t file_limit = 256u << 20;

mp_code no_memory(const char *path, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory for sentencepiece", path);
}

mp_code load(const char *path, const char *bytes, size_t n, mp_sentencepiece *s, mp_error *err)
{
    s->path = path;
    const auto status = s->processor.LoadFromSerializedProto(std::string(bytes, n));
    if (!status.ok())
        return mp_error_set(err, MP_EFORMAT, "%s: %s; expected a sentencepiece model, not damaged",
                            path, mp_plain(status.ToString().c_str()).text);
    return MP_OK;
}
} // namespace

extern "C" mp_code mp_sentencepiece_open(const char *path, mp_sentencepiece **out, mp_error *err)
{
    mp_sentencepiece *s = nullptr;
    char *bytes = nullptr;
    size_t n = 0;
    mp_code code = mp_file_read(path, file_limit, &bytes, &n, err);

    *out = nullptr;
    if (code)
        return code;
    try { /* sentencepiece throws when memory is short; nothing may leave C++ */
        s = new mp_sentencepiece;
        code = load(path, bytes, n, s, err);
    } catch (const std::bad_alloc &) {
        code = no_memory(path, err);
    } catch (...) {
        code = mp_error_set(err, MP_EFORMAT, "%s: sentencepiece cannot read it", path);
    }
    mp_free(bytes);
    if (code)
        delete s;
    else
        *out = s;
    return code;
}

extern "C" void mp_sentencepiece_close(mp_sentencepiece *s)
{
    delete s;
}

extern "C" mp_code mp_sentencepiece_encode(const mp_sentencepiece *s, const char *text, size_t n,
                                           mp_ids *ids, mp_error *err)
{
    try {
        std::vector<int> found;
        const auto status = s->processor.Encode(std::string(text, n), &found);
        if (!status.ok())
            return mp_error_set(err, MP_EFORMAT, "%s: %zu bytes cannot be encoded: %s",
                                s->path.c_str(), n, mp_plain(status.ToString().c_str()).text);
        for (const int id : found)
            mp_ids_append(ids, id);
    } catch (const std::bad_alloc &) {
        return no_memory(s->path.c_str(), err);
    } catch (...) {
        return mp_error_set(err, MP_EFORMAT, "%s: %zu bytes cannot be encoded", s->path.c_str(), n);
    }
    return ids->failed ? no_memory(s->path.c_str(), err) : MP_OK;
}

extern "C" int32_t mp_sentencepiece_find(const mp_sentencepiece *s, const char *token)
{
    try { /* an unknown piece comes back as the id of the unknown one */
        const int id = s->processor.PieceToId(token);
        return s->processor.IdToPiece(id) == token ? id : -1;
    } catch (...) {
        return -1;
    }
}

extern "C" int64_t mp_sentencepiece_size(const mp_sentencepiece *s)
{
    return s->processor.GetPieceSize();
}

extern "C" int32_t mp_sentencepiece_bos(const mp_sentencepiece *s)
{
    return s->processor.bos_id();
}

extern "C" int32_t mp_sentencepiece_eos(const mp_sentencepiece *s)
{
    return s->processor.eos_id();
}

extern "C" int32_t mp_sentencepiece_pad(const mp_sentencepiece *s)
{
    return s->processor.pad_id();
}
