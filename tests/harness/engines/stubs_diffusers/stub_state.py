"""What the stubs share.

The environment variable STUB tells the library, in JSON, how it is: {"versions": {package: version}, "lacks":
[pipeline, or "hooks"], "broken": {pipeline: text}, "tiling": "plain" or "none", "cuda": true, "slow": seconds
that a copy to numpy takes}. What a checkpoint does is told in its model_index.json: see pipeline_utils.py.
Calls go to the file STUB_LOG, a line each.
"""

import json
import os

STUB = json.loads(os.environ.get("STUB", "{}"))


def version(package, usual):
    return STUB.get("versions", {}).get(package, usual)


def log(call, **values):
    with open(os.environ["STUB_LOG"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"call": call, **values}, default=plain) + "\n")


def plain(value):
    return {k: str(v) for k, v in vars(value).items()} if hasattr(value, "__dict__") else str(value)
