"""diffusers_worker.py against stubs of Diffusers and of what it stands on.

What the real library's numbers are is ci/parity's to check. The stubs have no mathematics: here it is what
is asked of the library, and what is told of it, in all the releases that the worker drives.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import unittest
import unittest.mock

from worker_process import HERE, Worker, WorkerTest, only, request_of

STUBS = os.path.join(HERE, "stubs_diffusers")
PIP = "pip install torch diffusers transformers accelerate"
NOISE = [7 + i / 8 for i in range(4)]  # of seed 7
DTYPE_ERROR = "expected scalar type BFloat16 but found Float"
STEPS = ["latents_000", "latents_001"]
OLD = {"diffusers": "0.32.2", "transformers": "4.48.0"}


def stub(**state) -> dict[str, str]:
    """The environment that tells the library how it is."""
    return {"STUB": json.dumps(state)}


def texts(events: list[dict]) -> list[str]:
    """Of the warnings."""
    return [event["text"] for event in only(events, "warning")]


class DiffusersTest(WorkerTest):
    script = "diffusers_worker.py"

    def setUp(self) -> None:
        super().setUp()
        self.folder = os.path.realpath(self.folder)
        self.checkpoint = self.checkpoint_with("sana")
        self.workers: dict[str, Worker] = {}

    def write(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def checkpoint_with(self, name: str, **behaviour) -> str:
        """A checkpoint that makes the library behave so."""
        return os.path.dirname(self.write(f"{name}/model_index.json", json.dumps(behaviour)))

    def copy_stubs(self, name: str, without: str = "") -> str:
        """The libraries, but one, in a folder of their own."""
        folder = os.path.join(self.folder, name)
        shutil.copytree(STUBS, folder, ignore=shutil.ignore_patterns(without, "__pycache__"))
        return folder

    def environment(self) -> dict[str, str]:
        log = os.path.join(self.folder, "calls")
        return {"PYTHONPATH": STUBS, "STUB_LOG": log, "PYTHONDONTWRITEBYTECODE": "1"}

    def calls(self, *names: str) -> list[dict]:
        """What the stubs were called with."""
        path = os.path.join(self.folder, "calls")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return [call for call in map(json.loads, file) if call["call"] in names]

    def request(self, inputs: dict | None = None, **other) -> dict:
        every = {
            "prompt": "a fox",
            "negative_prompt": "",
            "num_inference_steps": 2,
            "guidance_scale": 4.5,
            "seed": 7,
            **(inputs or {}),
        }
        pipeline, checkpoint = other.pop("pipeline", "sana"), other.pop("checkpoint", self.checkpoint)
        return request_of(pipeline, checkpoint, self.outputs, every, **other)

    def run_cell(self, request: dict, **environment: str) -> list[dict]:
        """As the base's, but a test has one worker for each environment."""
        key = json.dumps(environment)
        if key not in self.workers:
            self.workers[key] = self.ready(**environment)
        return self.answer(self.workers[key], request)

    def done(self, request: dict, **environment: str) -> list[dict]:
        """The events of a cell that succeeds."""
        events = self.run_cell(request, **environment)
        self.assertEqual(events[-1], {"event": "done"})
        return events

    def ready(self, **environment: str) -> Worker:
        """A worker that waits for requests."""
        worker = self.start(**environment)
        self.assertEqual(worker.event()["event"], "ready", worker.output())
        return worker

    def answer(self, worker: Worker, request: dict) -> list[dict]:
        """The events of one more request to it."""
        worker.send(request)
        events = worker.until("done", "error")
        self.check_order(events)
        return events


class MissingLibraryTest(DiffusersTest):
    def engine_error(self, flags: list[str], **environment: str) -> str:
        """The text of the only thing that a worker says in an environment that will not do."""
        worker = self.start(flags, **environment)
        error = worker.event()
        self.assertEqual((error["event"], error.get("code")), ("error", "engine"), error)
        self.assertNotIn("exception", error)
        self.assertIsNone(worker.event())
        self.assertEqual(worker.close(), 0)
        return error["text"]

    def test_each_library_that_is_missing_is_named_with_the_remedy(self) -> None:
        for name in ("torch", "safetensors", "transformers", "diffusers"):
            with self.subTest(name):
                folder = self.copy_stubs(f"without_{name}", name)
                text = self.engine_error(["-S"], PYTHONPATH=folder)
                python = f"Python {platform.python_version()} at {sys.executable}"
                self.assertEqual(
                    text,
                    f"{python} has no {name} (No module named '{name}'); name one that has it with --python"
                    f" or MPBENCH_PYTHON, or a folder with it with --pythonpath; {PIP}",
                )

    def test_nothing_is_there(self) -> None:
        self.assertIn("has no torch (", self.engine_error(["-S"], PYTHONPATH=self.folder))

    def test_a_library_that_is_broken(self) -> None:
        for package, code, error in (
            ("diffusers", "from torch import compile", "ImportError: cannot import name 'compile'"),
            ("diffusers", "import regex_of_old", "ModuleNotFoundError: No module named 'regex_of_old'"),
            ("diffusers", "raise ValueError('numpy 1 or 2')", "ValueError: numpy 1 or 2"),
            ("transformers", "1 +", "SyntaxError: invalid syntax"),
            ("torch", "raise OSError('libcudart.so.13')", "OSError: libcudart.so.13"),
        ):
            with self.subTest(error):
                self.write(f"broken/{package}/__init__.py", code)
                path = os.pathsep.join([os.path.join(self.folder, "broken"), STUBS])
                text = self.engine_error([], PYTHONPATH=path)
                self.assertIn(f" at {sys.executable} cannot import {package}: {error}", text)
                shutil.rmtree(os.path.join(self.folder, "broken"))

    def test_a_library_that_was_found_elsewhere(self) -> None:
        library = self.copy_stubs("library")
        beside = os.path.join(self.folder, "lib")  # no parent, though its path begins so
        os.mkdir(beside)
        text = self.engine_error([], PYTHONPATH=library, MPBENCH_PYTHONPATH=beside)
        self.assertEqual(
            text,
            f"diffusers 0.42.1 was found at {library}/diffusers, not under --pythonpath {beside}; does that"
            " hold diffusers/__init__.py or src/diffusers/__init__.py?",
        )

    def test_a_library_that_was_found_where_it_should_be(self) -> None:
        self.copy_stubs("checkout/src")
        os.symlink("checkout", os.path.join(self.folder, "link"))
        for name in ("checkout", "link"):
            path = os.path.join(self.folder, name)
            first = self.first(PYTHONPATH=os.path.join(path, "src"), MPBENCH_PYTHONPATH=path)
            self.assertEqual(first["event"], "ready", first)
            self.assertEqual(first["environment"]["path"], f"{self.folder}/checkout/src/diffusers")


class EnvironmentTest(DiffusersTest):
    def test_ready(self) -> None:
        library = self.copy_stubs("library")
        defaults = {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "DIFFUSERS_VERBOSITY": "warning",
        }
        with unittest.mock.patch.dict(os.environ):
            for name in defaults:
                os.environ.pop(name, None)
            ready = self.first(PYTHONPATH=library)
        environment = ready.pop("environment")
        self.assertEqual(
            ready, {"event": "ready", "protocol": 1, "engine": "diffusers", "version": "0.42.1"}
        )
        wanted = {
            "torch": "2.99.0",
            "transformers": "5.3.0",
            "safetensors": "0.9.0",
            "path": os.path.join(library, "diffusers"),
            "torch_cpu_capability": "STUB2",
            "torch_mkldnn": "yes",
        }
        self.assertEqual({name: environment[name] for name in wanted}, wanted)
        self.assertRegex(environment["source_sha256"], "^[0-9a-f]{64}$")
        self.assertEqual([name for name in environment if "cuda" in name or "git" in name], [])
        self.assertEqual(self.calls("import"), [{"call": "import", **defaults}])
        bars = [call["library"] for call in self.calls("disable_progress_bar")]
        self.assertEqual(sorted(bars), ["diffusers", "transformers"])

    def test_what_the_user_set_stays(self) -> None:
        self.first(DIFFUSERS_VERBOSITY="info")
        self.assertEqual(self.calls("import")[0]["DIFFUSERS_VERBOSITY"], "info")

    def test_source_sha256_is_of_all_python_files_and_their_names(self) -> None:
        library = self.copy_stubs("library")

        def found(path: str = library) -> str:
            return self.first(PYTHONPATH=path)["environment"]["source_sha256"]

        hashes = [found()]
        self.write("library/diffusers/notes.txt", "no code")
        self.write("library/transformers/more.py", "# another library")
        self.assertEqual(found(), hashes[0])
        self.assertEqual(found(self.copy_stubs("elsewhere")), hashes[0])
        with open(os.path.join(library, "diffusers", "hooks", "__init__.py"), "a", encoding="ascii") as file:
            file.write("# edited\n")
        hashes.append(found())
        self.write("library/diffusers/hooks/a.py", "# new\n")
        hashes.append(found())
        os.rename(f"{library}/diffusers/hooks/a.py", f"{library}/diffusers/hooks/b.py")
        hashes.append(found())
        self.assertEqual(len({*hashes}), 4)

    def git(self, folder: str, *command: str) -> str:
        name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        arguments = ["git", "-C", folder, *name, *command]
        return subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def commits(self, *path: str) -> dict[str, str]:
        """What `ready` says of git with this PYTHONPATH."""
        environment = self.first(PYTHONPATH=os.pathsep.join(path))["environment"]
        return {name[11:]: value for name, value in environment.items() if name.startswith("git_commit_")}

    @unittest.skipUnless(shutil.which("git"), "git is not installed")
    def test_the_commit_of_a_checkout(self) -> None:
        others = self.copy_stubs("others", "diffusers")
        source = os.path.join(self.folder, "checkout", "src")
        shutil.copytree(os.path.join(STUBS, "diffusers"), os.path.join(source, "diffusers"))
        checkout = os.path.dirname(source)
        self.git(checkout, "init", "-q")
        self.assertEqual(self.commits(source, others), {})
        self.git(checkout, "add", ".")
        self.git(checkout, "commit", "-qm", "t")
        commit = self.git(checkout, "rev-parse", "HEAD")
        self.write("checkout/src/diffusers/untracked.py", "")
        self.assertEqual(self.commits(source, others), {"diffusers": commit})
        self.write("checkout/src/diffusers/models.py", "# changed")
        self.assertEqual(self.commits(source, others), {"diffusers": f"{commit}-dirty"})

    @unittest.skipUnless(shutil.which("git"), "git is not installed")
    def test_a_venv_in_a_repository_is_not_that_repository_s(self) -> None:
        repository = os.path.dirname(self.write("repository/readme", "t"))
        self.git(repository, "init", "-q")
        self.git(repository, "add", ".")
        self.git(repository, "commit", "-qm", "t")
        self.assertEqual(self.commits(self.copy_stubs("repository/venv")), {})


class RefusalTest(DiffusersTest):
    def refused_early(self, request: dict, code: str, *words: str, **environment: str) -> dict:
        """Refused before a checkpoint is read."""
        error = self.refused(request, code, *words, **environment)
        self.assertEqual(self.calls("from_pretrained"), [])
        return error

    def test_a_release_without_the_pipeline(self) -> None:
        for pipeline, name, since, release in (
            ("sana", "SanaPipeline", "0.32.0", "0.31.0"),
            ("wan-vace", "WanVACEPipeline", "0.34.0", "0.33.1"),
        ):
            environment = stub(lacks=[name], versions={"diffusers": release})
            request = self.request(pipeline=pipeline)
            error = self.refused_early(request, "unsupported", **environment)
            self.assertEqual(
                error["text"],
                f"Diffusers {release} has no {name}; it came with {since}: name a newer one with --pythonpath"
                " or --python",
            )

    def test_a_pipeline_that_cannot_be_imported(self) -> None:
        environment = stub(broken={"SanaPipeline": "no GemmaFast"})
        error = self.refused_early(self.request(), "engine", **environment)
        self.assertEqual(
            error["text"],
            "Diffusers 0.42.1 with transformers 5.3.0 cannot import SanaPipeline: no GemmaFast",
        )

    def test_what_it_does_not_know(self) -> None:
        for word, other in {
            "sana, sd3, wan-vace, not flux": {"pipeline": "flux"},
            "policy negotiate": {"precision__policy": "negotiate"},
            "no dtype int4": {"precision__default": "int4"},
            "SanaPipeline has no component prior": {"precision__components": {"prior": "fp32"}},
            "SanaPipeline has no component unet": {"precision__storage": {"unet": "fp8_e4m3"}},
        }.items():
            with self.subTest(word):
                self.refused_early(self.request(**other), "unsupported", word)

    def test_no_checkpoint(self) -> None:
        for checkpoint in (self.outputs, "Owner/name"):
            request = self.request(checkpoint=checkpoint)
            self.refused_early(request, "missing", f"{checkpoint}/model_index.json is missing")

    def test_no_cuda_device(self) -> None:
        error = self.refused_early(self.request(device="cuda"), "device")
        self.assertEqual(
            error["text"],
            "torch 2.99.0 (built for no CUDA) finds no CUDA device: see nvidia-smi, name a Python with a CUDA"
            " build of torch with --python, or use --device cpu",
        )

    def test_storage_in_a_release_without_layerwise_casting(self) -> None:
        request = self.request(precision__storage={"transformer": "fp8_e4m3"})
        error = self.refused(request, "unsupported", **stub(lacks=["hooks"], versions=OLD))
        self.assertEqual(
            error["text"],
            "Diffusers 0.32.2 has no layerwise casting, which precision.storage needs; it came with 0.33.0:"
            " name a newer one with --pythonpath or --python",
        )

    def test_a_vae_that_takes_no_sizes_of_tiles(self) -> None:
        request = self.request(tiling={"tile": [32, 48], "stride": [28, 40]})
        for tiling in ("plain", "none"):
            text = "Vae of Diffusers 0.42.1 takes no size and stride of tiles"
            self.refused(request, "unsupported", text, **stub(tiling=tiling))
            self.assertEqual(self.calls("enable_tiling"), [])
            self.done(self.request(), **stub(tiling=tiling))


class LoadingTest(DiffusersTest):
    def loaded(self, environment: dict | None = None, **other) -> dict:
        """How the library was asked, and what it had when it was called."""
        events = self.done(self.request(**other), **(environment or {}))
        asked, call = self.calls("from_pretrained")[-1], self.calls("__call__")[-1]
        parts = [part for part in self.calls("load_sub_model") if part["name"] != "tokenizer"]
        return {**asked, **call, "parts": parts[-3:], "warnings": texts(events)}

    def parts_dtypes(self, loaded: dict) -> list[str]:
        """What load_sub_model was told for text encoder, transformer and VAE."""
        return [dtype for part in loaded["parts"] for dtype in part["dtype"].values()]

    def test_the_argument_of_each_release(self) -> None:
        dtypes = {"text_encoder": "torch.bfloat16", "transformer": "torch.bfloat16", "vae": "torch.float32"}
        for release, transformers, spelling in (
            ("0.32.2", "4.48.0", None),
            ("0.33.0.dev0", "4.48.0", None),
            ("0.33.0", "4.57.0", "torch_dtype"),
            ("0.40.0.dev0", "5.0.0", "torch_dtype"),
            ("0.40.0", "4.57.0", "dtype"),
            ("0.42.1", "5.3.0", "dtype"),
        ):
            with self.subTest(release):
                versions = {"diffusers": release, "transformers": transformers}
                loaded = self.loaded(stub(versions=versions), precision__components={"vae": "fp32"})
                self.assertEqual(loaded["told"], {spelling: dtypes} if spelling else {})
                self.assertEqual(self.parts_dtypes(loaded), [*dtypes.values()])
                self.assertTrue(loaded["restored"])
                self.assertEqual(loaded["warnings"], [])

    def test_the_inner_loader_is_put_back_after_a_failure(self) -> None:
        worker = self.ready(**stub(versions=OLD))
        broken = self.checkpoint_with("broken", fault={"in": "from_pretrained", "text": "no weights"})
        error = self.answer(worker, self.request(checkpoint=broken))[-1]
        self.assertEqual((error["code"], error["text"]), ("io", "no weights"))
        self.assertRegex(error["frame"], r"^diffusers/pipelines/pipeline_utils\.py:\d+ in from_pretrained$")
        self.assertEqual((error["stage"], error["exception"]), ("load", "OSError"))
        self.assertEqual(self.answer(worker, self.request())[-1], {"event": "done"})
        self.assertTrue(self.calls("__call__")[-1]["restored"])

    def test_nothing_is_fetched_and_nothing_unpickled(self) -> None:
        for versions in (OLD, {"diffusers": "0.33.0"}, {}):
            for variant in (None, "fp16"):
                loaded = self.loaded(stub(versions=versions), variant=variant)
                wanted = {"local_files_only": True, "use_safetensors": True, "variant": variant,
                          "folder": self.checkpoint}  # fmt: skip
                self.assertEqual({name: loaded[name] for name in wanted}, wanted)

    def test_load_to(self) -> None:
        for versions in (OLD, {}):
            loaded = self.loaded(stub(versions=versions), precision__load="to", precision__default="fp16",
                                 precision__components={"vae": "bf16"})  # fmt: skip
            self.assertEqual(self.parts_dtypes(loaded), ["torch.float32"] * 3)
            dtypes = [loaded["dtypes"][f"{name}.weight"] for name in ("text_encoder", "transformer", "vae")]
            self.assertEqual(dtypes, ["float16", "float16", "bfloat16"])
            self.assertEqual(loaded["dtypes"]["text_encoder.position_ids"], "int64")

    def test_all_dtypes(self) -> None:
        for name, dtype in (("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16"),
                            ("fp8_e4m3", "float8_e4m3fn"), ("fp8_e5m2", "float8_e5m2")):  # fmt: skip
            loaded = self.loaded(precision__components={"transformer": name})
            self.assertEqual(loaded["dtypes"]["transformer.proj_out.weight"], dtype)
            self.assertEqual(loaded["dtypes"]["vae.weight"], "bfloat16")

    def test_the_last_override_that_matches_wins(self) -> None:
        overrides = [
            {"match": "transformer.*", "dtype": "fp16"},
            {"match": "transformer.proj_out", "dtype": "fp32"},
            {"match": "text_encoder", "dtype": "fp32"},
            {"match": "transformer.att?.weight", "dtype": "fp32"},
            {"match": "vae.dec", "dtype": "fp32"},
            {"match": "vae.attn*", "dtype": "fp32"},
        ]
        loaded = self.loaded(precision__overrides=overrides)
        self.assertEqual(loaded["dtypes"], {
            "text_encoder.weight": "float32",
            "text_encoder.position_ids": "int64",
            "text_encoder.norm.weight": "float32",
            "transformer.weight": "float16",
            "transformer.patch_embed.weight": "float16",
            "transformer.attn.weight": "float32",
            "transformer.proj_out.weight": "float32",
            "vae.weight": "bfloat16",
            "vae.decoder.weight": "bfloat16",
        })  # fmt: skip
        self.assertEqual(loaded["warnings"], [
            f"precision.overrides: nothing is named '{match}'; a name is like vae.decoder.weight"
            for match in ("vae.dec", "vae.attn*")
        ])  # fmt: skip

    def test_overrides_take_their_values_from_fp32(self) -> None:
        self.done(self.request(precision__overrides=[{"match": "vae", "dtype": "fp16"}]))
        dtypes = [
            {*part["dtype"].values()}
            for part in self.calls("load_sub_model")
            if part["name"] != "tokenizer"
        ]
        self.assertEqual(dtypes, 3 * [{"torch.bfloat16"}] + 3 * [{"torch.float32"}])

    def test_an_override_that_another_hides_does_not_warn(self) -> None:
        overrides = [{"match": "vae.decoder", "dtype": "fp16"}, {"match": "vae*", "dtype": "fp32"}]
        loaded = self.loaded(precision__overrides=overrides)
        self.assertEqual(loaded["dtypes"]["vae.decoder.weight"], "float32")
        self.assertEqual(loaded["warnings"], [])

    def test_storage_is_layerwise_casting(self) -> None:
        self.done(self.request(
            precision__storage={"transformer": "fp8_e4m3", "text_encoder": "fp8_e5m2"},
            precision__components={"text_encoder": "fp32"},
            precision__overrides=[{"match": "transformer.attn", "dtype": "fp32"}],
        ))  # fmt: skip
        usual = ["norm", "^proj_out$"]
        self.assertEqual(self.calls("enable_layerwise_casting"), [{
            "call": "enable_layerwise_casting",
            "model": "Transformer",
            "storage": "torch.float8_e4m3fn",
            "compute": "torch.bfloat16",
            "skip": [*usual, "^attn$"],
        }])  # fmt: skip
        self.assertEqual(self.calls("apply_layerwise_casting"), [{
            "call": "apply_layerwise_casting",
            "model": "TextEncoder",
            "storage": "torch.float8_e5m2",
            "compute": "torch.float32",
            "skip": usual,
        }])  # fmt: skip

    def test_tiles_are_height_then_width(self) -> None:
        self.done(self.request(tiling={"tile": [32, 48], "stride": [28, 40]}))
        wanted = {"call": "enable_tiling", "minimum": [32, 48], "stride": [28, 40]}
        self.assertEqual(self.calls("enable_tiling"), [wanted])

    def test_weights_and_threads_are_told(self) -> None:
        events = self.done(self.request(threads=3))
        self.assertEqual(only(events, "weights"), [{"event": "weights", "mapped": 0, "converted": 80}])
        self.assertEqual([call["count"] for call in self.calls("set_num_threads")], [3])

    def tokenizer(self, config: dict, **versions: str) -> dict:
        """How it was read, with the cell's warnings."""
        self.write("sana/tokenizer/tokenizer_config.json", json.dumps(config))
        events = self.done(self.request(), **stub(versions=versions))
        call = self.calls("tokenizer")[-1]
        self.assertEqual(call.pop("folder"), os.path.join(self.checkpoint, "tokenizer"))
        return {**call, "warnings": texts(events)}

    def test_a_tokenizer_of_transformers_5_is_read_by_4(self) -> None:
        config = {"backend": "tokenizers", "extra_special_tokens": ["<a>"]}
        for diffusers in ("0.32.2", "0.38.0"):
            self.assertEqual(self.tokenizer(config, diffusers=diffusers, transformers="4.57.0"), {
                "call": "tokenizer",
                "cls": "GemmaTokenizerFast",
                "local_files_only": True,
                "extra_special_tokens": {},
                "additional_special_tokens": ["<a>"],
                "warnings": ["transformers 5 saved the tokenizer: 4.57.0 reads it as GemmaTokenizerFast"],
            })  # fmt: skip
        plain = {"call": "tokenizer", "cls": "GemmaTokenizer", "warnings": []}
        self.assertEqual(self.tokenizer(config, transformers="5.0.0"), plain)
        self.assertEqual(self.tokenizer({}, diffusers="0.38.0", transformers="4.57.0"), plain)


class CallTest(DiffusersTest):
    def given(self, inputs: dict | None = None, **other) -> dict:
        """What the pipeline was called with."""
        self.done(self.request(inputs, **other))
        return self.calls("__call__")[-1]["given"]

    def test_inputs_go_by_their_own_names(self) -> None:
        given = self.given({"complex_human_instruction": None, "height": 64, "width": 32})
        wanted = {
            "prompt": "a fox",
            "negative_prompt": "",
            "num_inference_steps": 2,
            "guidance_scale": 4.5,
            "height": 64,
            "width": 32,
            "complex_human_instruction": None,
            "generator": {"device": "cpu", "seed": "7"},
            "output_type": "pt",
        }
        self.assertEqual({name: given[name] for name in wanted}, wanted)
        self.assertTrue(self.calls("__call__")[-1]["quiet"])

    def test_an_input_that_it_does_not_know_is_refused(self) -> None:
        text = "SanaPipeline of Diffusers 0.42.1 has no argument 'conditioning_scale'"
        self.refused(self.request({"conditioning_scale": 1.0}, defaults=["width"]), "unsupported", text)
        self.assertEqual(self.calls("from_pretrained"), [])

    def test_a_default_that_it_does_not_know_is_dropped_with_one_warning(self) -> None:
        inputs = {"conditioning_scale": 1.0, "width": 32}
        events = self.done(self.request(inputs, defaults=[*inputs], repeat=2, warmup=1))
        text = "SanaPipeline of Diffusers 0.42.1 has no argument 'conditioning_scale': it runs without it"
        self.assertEqual(texts(events), [text])
        given = self.calls("__call__")[-1]["given"]
        self.assertEqual(given["width"], 32)
        self.assertNotIn("conditioning_scale", given)

    def test_wan_vace_has_pictures(self) -> None:
        paths = [self.write(name, "") for name in ("0.png", "1.png", "mask.png", "reference.png")]
        inputs = {"video": paths[:2], "mask": paths[2:3], "reference_images": paths[3:], "num_frames": 2}
        events = self.done(self.request(inputs, pipeline="wan-vace"))
        given = self.calls("__call__")[-1]["given"]
        for name, mode in (("video", "RGB"), ("mask", "L"), ("reference_images", "RGB")):
            self.assertEqual(given[name], [{"path": path, "mode": mode} for path in inputs[name]])
        frames = only(events, "tensor")[-1]
        self.assertEqual((frames["name"], frames["dtype"]), ("frames", "bf16"))
        decoded = [4 * value for value in NOISE] * 3
        self.check_tensor(frames, [2, 3, 2, 2], [*decoded, *[value + 1 for value in decoded]])

    def test_wan_vace_without_pictures(self) -> None:
        names = ("video", "mask", "reference_images")
        given = self.given({**dict.fromkeys(names), "num_frames": 1}, pipeline="wan-vace")
        self.assertEqual([given[name] for name in names], [None] * 3)

    def test_wan_vace_s_embeddings(self) -> None:
        for scale, wanted in ((5.0, [2, 1, 5, 1]), (1.0, [5, 1])):
            inputs = {"negative_prompt": "no", "guidance_scale": scale, "num_frames": 1}
            events = only(self.done(self.request(inputs, pipeline="wan-vace")), "tensor")
            self.check_tensor(events[0], [len(wanted) // 2, 1, 2], wanted)

    def test_a_picture_that_is_not_there(self) -> None:
        request = self.request({"mask": ["/nowhere.png"], "num_frames": 1}, pipeline="wan-vace")
        self.refused(request, "missing", "/nowhere.png")


class GenerationTest(DiffusersTest):
    def test_all_is_told_in_the_protocol_s_order(self) -> None:
        events = self.done(self.request(repeat=2, warmup=1))
        told = [
            (e["event"], e.get("stage", e.get("name", e.get("step"))))
            for e in events
            if e["event"] not in ("weights", "memory", "done")
        ]
        one = [
            ("begin", "text_encode"),
            ("tensor", "prompt_embeds"),
            ("stage", "text_encode"),
            ("begin", "denoise"),
            ("tensor", "initial_noise"),
            ("tensor", "latents_000"),
            ("step", 0),
            ("tensor", "latents_001"),
            ("step", 1),
            ("stage", "denoise"),
            ("begin", "decode"),
            ("tensor", "image"),
            ("stage", "decode"),
            ("stage", "total"),
        ]
        self.assertEqual(told, [("begin", "load"), ("stage", "load"), *one * 3])
        repeats = [e["repeat"] for e in events if "repeat" in e]
        self.assertEqual(repeats[2:], [-1] * 14 + [0] * 14 + [1] * 14)
        self.assertEqual({e["steps"] for e in only(events, "step")}, {2})
        self.assertTrue(all(e["seconds"] >= 0 for e in only(events, "stage")))

    def test_tensors_are_written_once_and_told_each_time(self) -> None:
        events = only(self.done(self.request({"negative_prompt": "no"}, repeat=2)), "tensor")
        names = ["prompt_embeds", "initial_noise", *STEPS, "image"]
        self.assertEqual([e["name"] for e in events], names * 2)
        self.assertEqual([e["dtype"] for e in events[:5]], ["bf16", "fp32", "fp32", "fp32", "bf16"])
        self.check_tensor(events[0], [2, 1, 2], [2, 1, 5, 1])
        self.check_tensor(events[1], [1, 1, 2, 2], NOISE)
        self.check_tensor(events[2], [1, 1, 2, 2], [2 * value for value in NOISE])
        self.check_tensor(events[3], [1, 1, 2, 2], [4 * value for value in NOISE])
        self.check_tensor(events[4], [1, 3, 2, 2], [4 * value for value in NOISE] * 3)
        for first, again in zip(events[:5], events[5:]):
            self.assertEqual(first["sha256"], again["sha256"])
            self.assertNotIn("file", again)

    def test_without_guidance_the_negative_prompt_is_not_told(self) -> None:
        events = only(self.done(self.request({"guidance_scale": 1.0})), "tensor")
        self.check_tensor(events[0], [1, 1, 2], [5, 1])

    def test_noise_ulps_move_what_the_library_goes_on_with(self) -> None:
        for ulps in (2, -3):
            events = only(self.done(self.request(noise_ulps=ulps)), "tensor")
            noise = [value + ulps * 2.0**-21 for value in NOISE]  # an ulp of fp32 from 4 to 8
            self.check_tensor(events[1], [1, 1, 2, 2], noise)
            self.check_tensor(events[2], [1, 1, 2, 2], [2 * value for value in noise])

    def test_telling_takes_no_time(self) -> None:
        events = self.done(self.request(), **stub(slow=0.3))  # each of five tensors
        for stage in only(events, "stage"):
            self.assertLess(stage["seconds"], 0.3, stage)

    def test_the_library_s_warnings_are_told_once_a_cell(self) -> None:
        worker = self.ready()
        for text in ("cut off", "cut off", "too long"):
            says = {"log": text, "info": "nothing", "warn": "an old name"}
            checkpoint = self.checkpoint_with("speaking", says=says)
            events = self.answer(worker, self.request(checkpoint=checkpoint, repeat=2, warmup=1))
            self.assertEqual(texts(events), [text, f"{text} in load", "an old name", f"{text} in call"])
        self.assertIn("torch warns of itself", worker.output())
        self.assertIn("an old name", worker.output())

    def test_quirks_mean_nothing(self) -> None:
        events = self.done(self.request(quirks=["a", "b"], repeat=2))
        self.assertEqual(texts(events), ["quirks mean nothing to Diffusers: a, b"])


class FailureTest(DiffusersTest):
    def faulty(self, **fault) -> dict:
        """A request for a checkpoint with this fault."""
        checkpoint = self.checkpoint_with("faulty", fault=fault)
        return self.request(checkpoint=checkpoint, repeat=2)

    def error(self, where: str, kind: str, text: str = "no", **other) -> dict:
        return self.run_cell(self.faulty(**{"in": where}, kind=kind, text=text, **other))[-1]

    def test_an_exception_in_a_module_says_where(self) -> None:
        error = self.error("transformer.proj_out", "RuntimeError", DTYPE_ERROR, at=1)
        self.assertRegex(error.pop("frame"), r"^diffusers/models\.py:\d+ in forward$")
        self.assertEqual(error, {
            "event": "error",
            "code": "dtype",
            "text": DTYPE_ERROR,
            "exception": "RuntimeError",
            "module": "transformer.proj_out",
            "op": "",
            "stage": "denoise",
            "step": 1,
        })  # fmt: skip

    def test_stages_modules_and_codes(self) -> None:
        encoder, models = "transformers/__init__", "diffusers/models"
        for where, kind, code, stage, step, frame in (
            ("text_encoder.norm", "ValueError", "exception", "text_encode", -1, encoder),
            ("transformer.attn", "NotImplementedError", "unsupported", "denoise", 0, models),
            ("transformer", "MemoryError", "memory", "denoise", 0, models),
            ("vae.decoder", "OutOfMemoryError", "memory", "decode", -1, models),
        ):
            with self.subTest(where):
                error = self.error(where, kind)
                found = [error[name] for name in ("module", "code", "stage", "step", "text")]
                self.assertEqual(found, [where, code, stage, step, "no"])
                name = f"torch.{kind}" if kind == "OutOfMemoryError" else kind
                self.assertEqual(error["exception"], name)
                function = "__call__" if where == "transformer.attn" else "forward"
                self.assertRegex(error["frame"], rf"^{frame}\.py:\d+ in {function}$")

    def test_the_first_module_that_is_not_finite(self) -> None:
        for where, op, stage, step in (
            ("text_encoder", "TextEncoder", "text_encode", -1),
            ("transformer.attn", "Attention", "denoise", 0),
            ("transformer", "Transformer", "denoise", 0),
            ("vae.decoder", "Conv2d", "decode", -1),
        ):
            with self.subTest(where):
                values = ["nan", "inf"] if where == "text_encoder" else ["nan", "inf", "-inf"]
                self.check_nonfinite(self.faulty(**{"in": where}, values=values), {
                    "module": where, "op": op, "stage": stage, "step": step,
                    "nan": 1, "inf": len(values) - 1,
                })  # fmt: skip

    def test_what_is_not_finite_outside_all_modules(self) -> None:
        place = {"module": "", "op": "", "stage": "denoise", "step": 0, "nan": 0, "inf": 4}
        self.check_nonfinite(self.faulty(**{"in": "scheduler"}), place)

    def check_nonfinite(self, request: dict, place: dict) -> None:
        """The cell is done after one generation and names the place, and the modules are as before."""
        deleted = len(self.calls("__del__"))
        worker = self.ready()
        events = self.answer(worker, request)
        self.assertEqual(events[-1], {"event": "done"})
        self.assertEqual(only(events, "nonfinite"), [{"event": "nonfinite", **place}])
        self.assertEqual([e["name"] for e in only(events, "stage")].count("total"), 1)
        self.assertEqual(len(only(events, "tensor")), 5)
        self.assertEqual([call["hooks"] for call in self.calls("__del__")][deleted:], [0])

    def test_a_cell_that_is_finite_is_not_searched(self) -> None:
        values = ["3", "4"]
        events = self.done(self.faulty(**{"in": "transformer"}, values=values))
        self.assertEqual(only(events, "nonfinite"), [])
        self.assertEqual(len(self.calls("__call__")), 2)

    def test_a_worker_serves_one_cell_after_another(self) -> None:
        requests = [
            (self.request(), "done"),
            (self.faulty(**{"in": "transformer.attn"}, kind="RuntimeError", text="no"), "error"),
            (self.request(pipeline="flux"), "error"),
            (self.request(tiling={"tile": [32, 32], "stride": [28, 28]}), "error"),
            (self.request(), "done"),
        ]
        worker, first = self.ready(**stub(tiling="plain")), None
        for cell, (request, end) in enumerate(requests):
            events = self.answer(worker, {**request, "id": cell})
            self.assertEqual((events[-1]["event"], events[-1]["id"]), (end, cell))
            hashes = [(e["name"], e["sha256"]) for e in only(events, "tensor")]
            first = first or hashes
        self.assertEqual(hashes, first)
        self.assertEqual(len(self.calls("__del__")), 4)
        self.assertEqual(worker.close(), 0)


class CudaTest(DiffusersTest):
    def environment(self) -> dict[str, str]:
        return {**super().environment(), **stub(cuda=True)}

    def test_ready_names_the_card(self) -> None:
        environment = self.first()["environment"]
        found = (environment["torch_cuda"], environment["cuda_device"])
        self.assertEqual(found, ("13.0", "Stub 9000"))

    def test_memory_of_a_card(self) -> None:
        memory = only(self.done(self.request(device="cuda")), "memory")[0]
        self.assertEqual((memory["cuda_allocated"], memory["cuda_reserved"]), (111, 222))
        self.assertEqual([call["device"] for call in self.calls("reset_peak_memory_stats")], ["cuda"])

    def test_memory_of_a_cpu(self) -> None:
        worker = self.ready()
        self.assertIn("cuda_allocated", only(self.answer(worker, self.request(device="cuda")), "memory")[0])
        memory = only(self.answer(worker, self.request()), "memory")[0]
        self.assertEqual([*memory], ["event", "peak_rss", "idle_rss"])
        self.assertGreaterEqual(memory["peak_rss"], memory["idle_rss"])
        self.assertGreater(memory["idle_rss"], 0)

    def test_the_pipeline_is_on_the_card_and_the_generator_is_not(self) -> None:
        for ulps in (0, 1):
            events = self.done(self.request(device="cuda", noise_ulps=ulps))
            call = self.calls("__call__")[-1]
            self.assertEqual((call["device"], call["given"]["generator"]["device"]), ("cuda", "cpu"))
            noise = [value + ulps * 2.0**-21 for value in NOISE]
            self.check_tensor(only(events, "tensor")[-2], [1, 1, 2, 2], [4 * value for value in noise])

    def test_stages_wait_for_the_card(self) -> None:
        self.done(self.request(device="cuda"))
        self.assertGreaterEqual(len(self.calls("synchronize")), 4)
        before = len(self.calls("synchronize"))
        self.done(self.request())
        self.assertEqual(len(self.calls("synchronize")), before)

    def test_a_pipeline_is_gone_before_the_card_s_cache_is_emptied(self) -> None:
        fault = {"in": "transformer.attn", "kind": "RuntimeError", "text": "no"}
        worker = self.ready()
        for checkpoint in (self.checkpoint, self.checkpoint_with("faulty", fault=fault)):
            done = len(self.calls("__del__", "empty_cache"))
            self.answer(worker, self.request(device="cuda", checkpoint=checkpoint))
            calls = [call["call"] for call in self.calls("__del__", "empty_cache")]
            self.assertEqual(calls[done:], ["__del__", "empty_cache"])


if __name__ == "__main__":
    unittest.main()
