"""diffsynth_worker.py against a stub of the package.

The stub has the signatures of diffsynth 2.1.12, which record_signatures.py took from the real package,
and needs neither torch nor Pillow.  With MPBENCH_TEST_DIFFSYNTH, a PYTHONPATH on which the real package
can be imported, they are compared with it.  What was tried with the real package is told at the top of
diffsynth_worker.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unittest

from worker_process import HERE, WorkerTest, only, request_of

STUBS = os.path.join(HERE, "stubs")
SIGNATURES = os.path.join(STUBS, "diffsynth", "signatures.json")
FILES = (
    "diffusion_pytorch_model-00001-of-00002.safetensors",
    "diffusion_pytorch_model-00002-of-00002.safetensors",
    "models_t5_umt5-xxl-enc-bf16.pth",
    "Wan2.1_VAE.pth",
)
DTYPE_ERROR = "Input type (c10::BFloat16) and bias type (c10::Float8_e4m3fn) should be the same"


class DiffSynthTest(WorkerTest):
    script = "diffsynth_worker.py"

    def setUp(self) -> None:
        super().setUp()
        self.checkpoint = os.path.join(self.folder, "wan")
        os.makedirs(os.path.join(self.checkpoint, "google", "umt5-xxl"))
        for name in FILES:
            self.write(os.path.join("wan", name), "")
        self.frames = [self.write(f"frame_{i}", "16x8") for i in range(5)]

    def write(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": STUBS, "STUB_LOG": os.path.join(self.folder, "calls")}

    def calls(self, name: str) -> list[dict]:
        """What the stub was called with."""
        with open(os.path.join(self.folder, "calls"), encoding="utf-8") as file:
            return [call for call in map(json.loads, file) if call["call"] == name]

    def request(self, inputs: dict | None = None, **other) -> dict:
        every = {
            "prompt": "a fox",
            "negative_prompt": None,
            "video": self.frames,
            "mask": self.frames,
            "reference_images": None,
            "conditioning_scale": 0.5,
            "height": 8,
            "width": 16,
            "num_frames": 5,
            "num_inference_steps": 3,
            "guidance_scale": 5.0,
            "max_sequence_length": 512,
            "seed": 7,
            **(inputs or {}),
        }
        pipeline = other.pop("pipeline", "wan-vace")
        return request_of(pipeline, self.checkpoint, self.outputs, every, **other)

    def loaded(self, **other) -> dict:
        """How the stub was loaded: dtype of the pipeline, and each component's config."""
        self.run_cell(self.request(**other))
        call = self.calls("from_pretrained")[-1]
        names = ("transformer", "text_encoder", "vae")
        return {**call, **dict(zip(names, call["model_configs"]))}


class GenerationTest(DiffSynthTest):
    def test_all_is_told_in_the_protocol_s_order(self) -> None:
        events = self.run_cell(self.request(repeat=2, warmup=1))
        self.assertEqual(events[-1], {"event": "done"})
        told = [e.get("stage") or e.get("name") for e in events if e["event"] in ("begin", "stage")]
        one = ["text_encode", "text_encode", "denoise", "denoise", "decode", "decode", "total"]
        self.assertEqual(told, ["load", "load", *one * 3])
        self.assertEqual([e["repeat"] for e in only(events, "step")], [-1] * 3 + [0] * 3 + [1] * 3)
        self.assertEqual([e["step"] for e in only(events, "step")], [0, 1, 2] * 3)
        self.assertEqual({e["steps"] for e in only(events, "step")}, {3})
        self.assertEqual(only(events, "weights")[0]["converted"], 8 * 4 * 4)

    def test_tensors_are_written_once_and_told_each_time(self) -> None:
        events = only(self.run_cell(self.request(repeat=2)), "tensor")
        steps = [f"latents_{i:03d}" for i in range(3)]
        names = ["initial_noise", "prompt_embeds", *steps, "frames"]
        self.assertEqual([e["name"] for e in events], names * 2)
        self.assertEqual([e["dtype"] for e in events[:6]], ["bf16"] * 6)
        noise = [7 + i / 8 for i in range(2 * 2 * 1 * 2)]
        self.check_tensor(events[0], [1, 2, 2, 1, 2], noise)
        self.check_tensor(events[1], [2, 1, 2], [0, 1, len("a fox"), 1])
        self.check_tensor(events[2], [1, 2, 2, 1, 2], [value + 7 for value in noise])
        for first, again in zip(events[:6], events[6:]):
            self.assertEqual(first["sha256"], again["sha256"])
            self.assertNotIn("file", again)

    def test_frames_are_0_to_1_with_the_frame_first(self) -> None:
        event = only(self.run_cell(self.request()), "tensor")[-1]
        pixels = 8 * 16
        values = [
            ((channel * 5 + frame) * pixels + i) % 9 / 8
            for frame in range(5)
            for channel in range(3)
            for i in range(pixels)
        ]
        self.check_tensor(event, [5, 3, 8, 16], values)

    def test_without_guidance_the_negative_prompt_is_not_told(self) -> None:
        events = only(self.run_cell(self.request({"guidance_scale": 1.0})), "tensor")
        self.check_tensor(events[1], [1, 1, 2], [len("a fox"), 1])

    def test_noise_ulps_move_the_noise_before_it_is_cast(self) -> None:
        events = only(self.run_cell(self.request(noise_ulps=2)), "tensor")
        ulp = 2.0**-21  # of fp32 from 4 to 8; from 8 on it is twice that
        noise = [7 + i / 8 + 2 * ulp * (1 if i < 8 else 2) for i in range(8)]
        self.check_tensor(events[0], [1, 2, 2, 1, 2], noise)

    def test_inputs_have_its_names(self) -> None:
        self.run_cell(self.request({"reference_images": self.frames[:1]}))
        call = self.calls("__call__")[0]
        wanted = {
            "prompt": "a fox",
            "negative_prompt": "",
            "vace_scale": 0.5,
            "seed": 7,
            "rand_device": "cpu",
            "height": 8,
            "width": 16,
            "num_frames": 5,
            "num_inference_steps": 3,
            "cfg_scale": 5.0,
            "sigma_shift": 5.0,
            "tiled": False,
            "output_type": "floatpoint",
        }
        self.assertEqual({name: call[name] for name in wanted}, wanted)
        for name, count in (("vace_video", 5), ("vace_video_mask", 5), ("vace_reference_image", 1)):
            self.assertEqual([p["path"] for p in call[name]], self.frames[:count])
            self.assertEqual({p["mode"] for p in call[name]}, {"RGB"})

    def test_a_scheduler_config_gives_the_shift(self) -> None:
        self.write("wan/scheduler/scheduler_config.json", '{"flow_shift": 3.0}')
        self.run_cell(self.request())
        self.assertEqual(self.calls("__call__")[0]["sigma_shift"], 3.0)

    def test_tiles_are_counted_in_latent_pixels(self) -> None:
        self.run_cell(self.request(tiling={"tile": [240, 416], "stride": [120, 208]}))
        call = self.calls("__call__")[0]
        self.assertEqual((call["tiled"], call["tile_size"], call["tile_stride"]),
                         (True, [30, 52], [15, 26]))  # fmt: skip

    def test_a_worker_serves_one_cell_after_another(self) -> None:
        worker = self.start()
        self.assertEqual(worker.event()["event"], "ready")
        for request in (self.request(pipeline="sana"), self.request()):
            worker.send(request)
        self.assertEqual(worker.until("done", "error")[-1]["event"], "error")
        self.assertEqual(worker.until("done", "error")[-1]["event"], "done")
        self.assertEqual(worker.close(), 0)


class PrecisionTest(DiffSynthTest):
    def test_each_component_has_its_dtype(self) -> None:
        loaded = self.loaded(precision__default="fp16", precision__components={"vae": "fp32"})
        self.assertEqual(loaded["torch_dtype"], "torch.float16")
        dtypes = {name: loaded[name]["computation_dtype"] for name in ("transformer", "text_encoder", "vae")}
        self.assertEqual(dtypes, {"transformer": "torch.float16", "text_encoder": "torch.float16",
                                  "vae": "torch.float32"})  # fmt: skip
        self.assertIsNone(loaded["vae"]["offload_dtype"])
        self.assertEqual(loaded["threads"], [2])

    def test_fp8_weights_without_a_cast_are_its_own_affair(self) -> None:
        loaded = self.loaded(precision__components={"transformer": "fp8_e4m3"})
        self.assertEqual(loaded["transformer"]["computation_dtype"], "torch.float8_e4m3fn")
        self.assertIsNone(loaded["transformer"]["onload_dtype"])

    def test_storage_is_its_vram_management(self) -> None:
        loaded = self.loaded(precision__storage={"transformer": "fp8_e5m2"})
        states = {n: v for n, v in loaded["transformer"].items() if n.endswith(("_dtype", "_device"))}
        wanted = dict.fromkeys(("offload", "onload", "preparing"), "torch.float8_e5m2")
        wanted["computation"] = "torch.bfloat16"
        self.assertEqual(states, {
            **{f"{state}_dtype": dtype for state, dtype in wanted.items()},
            **{f"{state}_device": "cpu" for state in wanted},
        })  # fmt: skip
        self.assertIsNone(loaded["vae"]["offload_dtype"])

    def test_storage_on_a_cpu_mends_torch_and_says_so(self) -> None:
        storage = self.request(precision__storage={"vae": "fp8_e4m3"})
        self.assertIn("empty_cache", only(self.run_cell(storage), "warning")[0]["text"])
        self.assertTrue(self.calls("from_pretrained")[-1]["empty_cache"])
        self.assertEqual(only(self.run_cell(self.request()), "warning"), [])
        self.assertFalse(self.calls("from_pretrained")[-1]["empty_cache"])

    def test_what_it_cannot_do_is_refused(self) -> None:
        for word, other in {
            "sana": {"pipeline": "sana"},
            "variant": {"variant": "fp16"},
            "policy": {"precision__policy": "negotiate"},
            "load": {"precision__load": "to"},
            "overrides": {"precision__overrides": [{"match": "vae.*", "dtype": "fp32"}]},
            "image_encoder": {"precision__components": {"image_encoder": "fp32"}},
            "text_encoder_2": {"precision__storage": {"text_encoder_2": "fp8_e4m3"}},
            "tiling.stride": {"tiling": {"tile": [32, 32], "stride": [28, 28]}},
        }.items():
            with self.subTest(word):
                self.refused(self.request(**other), "unsupported", word)

    def test_no_cuda_device(self) -> None:
        self.refused(self.request(device="cuda"), "device", "CUDA")


class InputTest(DiffSynthTest):
    def test_an_input_without_counterpart_is_refused_unless_it_is_a_default(self) -> None:
        inputs = {"guidance_scale_2": 3.0, "max_sequence_length": 226}
        for name, value in inputs.items():
            self.refused(self.request({name: value}), "unsupported", name, repr(value))
        events = self.run_cell(self.request(inputs, defaults=list(inputs), quirks=["old"]))
        texts = [event["text"] for event in only(events, "warning")]
        self.assertEqual(len(texts), 2)
        self.assertIn("quirks", texts[0])
        self.assertIn("max_sequence_length, guidance_scale_2", texts[1])

    def test_one_scale_only(self) -> None:
        self.refused(self.request({"conditioning_scale": [1.0, 0.5]}), "unsupported", "conditioning_scale")

    def test_pictures_of_another_size_are_refused(self) -> None:
        other = [self.write("other", "32x32")]
        error = self.refused(self.request({"video": other}), "unsupported", "32x32", "16x8")
        self.assertIn("video", error["text"])

    def test_a_picture_that_is_not_there(self) -> None:
        self.refused(self.request({"mask": ["/nowhere.png"]}), "missing", "/nowhere.png")


class CheckpointTest(DiffSynthTest):
    def test_its_files_are_found_and_nothing_is_fetched(self) -> None:
        loaded = self.loaded()
        paths = [[os.path.join(self.checkpoint, name) for name in part]
                 for part in (FILES[:2], FILES[2:3], FILES[3:])]  # fmt: skip
        self.assertEqual([config["path"] for config in loaded["model_configs"]], paths)
        tokenizer = loaded["tokenizer_config"]
        self.assertEqual(tokenizer["path"], os.path.join(self.checkpoint, "google", "umt5-xxl"))
        configs = [*loaded["model_configs"], tokenizer]
        self.assertEqual([config["skip_download"] for config in configs], [True] * 4)
        self.assertEqual(loaded["skip"], "True")

    def test_safetensors_are_preferred(self) -> None:
        path = self.write("wan/Wan2.1_VAE.safetensors", "")
        self.assertEqual(self.loaded()["vae"]["path"], [path])

    def test_all_that_is_missing_is_named(self) -> None:
        for name in FILES[1:]:
            os.remove(os.path.join(self.checkpoint, name))
        error = self.refused(self.request(), "missing", "models_t5", "Wan2.1_VAE.pth")
        self.assertNotIn("diffusion_pytorch_model", error["text"])
        os.rmdir(os.path.join(self.checkpoint, "google", "umt5-xxl"))
        self.write("wan/model_index.json", "{}")
        self.refused(self.request(), "missing", "umt5-xxl", "Diffusers' layout")

    def test_a_checkpoint_that_it_does_not_know(self) -> None:
        self.refused(self.request(), "unsupported", "Cannot detect the model type", STUB='{"unknown": true}')

    def test_a_checkpoint_without_vace(self) -> None:
        self.refused(self.request(), "unsupported", "without VACE", STUB='{"no_vace": true}')


class FailureTest(DiffSynthTest):
    def error(self, where: str, kind: str, text: str) -> dict:
        stub = json.dumps({"error": {"in": where, "kind": kind, "text": text}})
        return self.run_cell(self.request(), STUB=stub)[-1]

    def test_a_dtype_error_says_where(self) -> None:
        error = self.error("dit.patch_embedding", "RuntimeError", DTYPE_ERROR)
        self.assertRegex(error.pop("frame"), r"^diffsynth/pipelines/wan_video\.py:\d+ in forward$")
        self.assertEqual(error, {
            "event": "error",
            "code": "dtype",
            "text": DTYPE_ERROR,
            "exception": "RuntimeError",
            "module": "transformer.patch_embedding",
            "op": "",
            "stage": "denoise",
            "step": 0,
        })  # fmt: skip

    def test_stages_and_codes(self) -> None:
        for where, kind, code, stage in (
            ("text_encoder", "ValueError", "exception", "text_encode"),
            ("vae.decoder", "MemoryError", "memory", "decode"),
        ):
            with self.subTest(where):
                error = self.error(where, kind, "no")
                found = (error["code"], error["stage"], error["module"], error["text"])
                self.assertEqual(found, (code, stage, where, "no"))

    def test_a_wrapper_of_the_vram_management_is_no_part_of_a_path(self) -> None:
        error = self.error("dit.blocks.module", "RuntimeError", "no")
        self.assertEqual(error["module"], "transformer.blocks")

    def test_the_first_module_that_is_not_finite(self) -> None:
        events = self.run_cell(self.request(repeat=3), STUB='{"nan": "vae.decoder"}')
        self.assertEqual(events[-1], {"event": "done"})
        self.assertEqual(len([e for e in only(events, "stage") if e["name"] == "total"]), 1)
        self.assertEqual(only(events, "nonfinite"), [{
            "event": "nonfinite",
            "module": "vae.decoder",
            "op": "Module",
            "stage": "decode",
            "step": -1,
            "nan": 5 * 3 * 8 * 16,
            "inf": 0,
        }])  # fmt: skip


class StartTest(DiffSynthTest):
    def test_ready_names_library_and_torch(self) -> None:
        ready = self.first()
        self.assertEqual((ready["engine"], ready["version"]), ("diffsynth", "2.1.12"))
        self.assertEqual(ready["environment"]["torch"], "0.0.stub")

    def test_a_missing_library(self) -> None:
        error = self.first(["-S"], PYTHONPATH=self.folder)
        self.assertEqual((error["event"], error["code"]), ("error", "engine"))
        self.assertIn("pip install diffsynth", error["text"])

    def test_another_release_is_refused_by_what_it_lacks(self) -> None:
        for stub, word in (
            ({"drop": ["WanVideoPipeline.__call__", "vace_scale"]}, "vace_scale"),
            ({"drop": ["WanVideoPipeline.from_pretrained", "model_configs"]}, "model_configs"),
            ({"drop": ["ModelConfig.__init__", "preparing_dtype"]}, "preparing_dtype"),
            ({"lacks": "generate_noise"}, "WanVideoPipeline.generate_noise"),
        ):
            with self.subTest(word):
                error = self.first(STUB=json.dumps(stub))
                self.assertEqual((error["event"], error["code"]), ("error", "unsupported"))
                for text in (word, "2.1.12"):
                    self.assertIn(text, error["text"])

    def test_a_release_without_the_pipeline(self) -> None:
        self.write("old/diffsynth/__init__.py", "")
        path = os.pathsep.join([os.path.join(self.folder, "old"), STUBS])
        error = self.first(PYTHONPATH=path)
        self.assertEqual(error["code"], "unsupported")
        self.assertIn("diffsynth.pipelines.wan_video", error["text"])

    def test_a_library_that_was_found_elsewhere(self) -> None:
        self.assertEqual(self.first(MPBENCH_PYTHONPATH=STUBS)["event"], "ready")
        error = self.first(MPBENCH_PYTHONPATH=self.folder)
        self.assertEqual((error["event"], error["code"]), ("error", "engine"))
        self.assertIn(self.folder, error["text"])

    @unittest.skipUnless(shutil.which("git"), "git is not installed")
    def test_the_commit_of_a_checkout(self) -> None:
        checkout = os.path.join(self.folder, "checkout")
        shutil.copytree(os.path.join(STUBS, "diffsynth"), os.path.join(checkout, "diffsynth"))
        path = {"PYTHONPATH": os.pathsep.join([checkout, STUBS]), "MPBENCH_PYTHONPATH": checkout}
        self.assertNotIn("git_commit", self.first(**path)["environment"])
        name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        for command in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "t", "--no-gpg-sign"]):
            subprocess.run(["git", "-C", checkout, *command], check=True)
        commit = self.first(**path)["environment"]["git_commit"]
        self.assertRegex(commit, "^[0-9a-f]{40}$")
        self.write("checkout/diffsynth/__init__.py", "# changed")
        self.assertEqual(self.first(**path)["environment"]["git_commit"], commit + "-dirty")

    @unittest.skipUnless("MPBENCH_TEST_DIFFSYNTH" in os.environ, "MPBENCH_TEST_DIFFSYNTH is not set")
    def test_the_stub_has_the_real_signatures(self) -> None:
        script = os.path.join(HERE, "record_signatures.py")
        environment = {**os.environ, "PYTHONPATH": os.environ["MPBENCH_TEST_DIFFSYNTH"]}
        real = subprocess.run(
            [sys.executable, script], env=environment, check=True, capture_output=True, text=True
        )
        with open(SIGNATURES, encoding="utf-8") as file:
            self.assertEqual(json.loads(real.stdout), json.load(file))


if __name__ == "__main__":
    unittest.main()
