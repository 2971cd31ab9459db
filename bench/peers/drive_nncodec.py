"""NNCodec's encoder and decoder at one setting; run by bench/nncodec.py with the environment that holds NNCodec.

Standard input is one JSON object: `weights`, an .npz file of float32 arrays; `blocks`, which batch norm belongs to which
weight; `settings` of `nnc.compress`; `out`, the .npz file to write decoded weights to; `repeats`. What comes back is a line
of JSON: bytes, and the least seconds of encoding, of that part of it that is quantization, and of decoding. Decoded weights
keep NNCodec's names: with `bnf` a weight has its batch norm in it, and NAME.bias is what remains.
"""

import contextlib
import copy
import json
import sys
import time
import types

UNUSED = ("tensorflow_model", "pytorch_model", "use_case_init")  # wrap the codec for training; want torchvision, cv2 and more


def codec():
    """NNCodec's own module, with empty modules in place of those that a dictionary of arrays does not need."""
    framework = types.ModuleType("nncodec.framework")
    for name in UNUSED:
        setattr(framework, name, types.ModuleType(f"nncodec.framework.{name}"))
    sys.modules["nncodec.framework"] = framework
    from nncodec import nnc

    return nnc


def best(call, repeats):
    """What a call returns, and the least seconds that it took."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        made = call()
        times.append(time.perf_counter() - began)
    return made, min(times)


def run(nnc, weights, blocks, settings, repeats):
    """The decoded weights, and what it took."""
    kinds = blocks if settings.get("bnf") else None

    def encode(**more):
        given = dict(weights), None
        return nnc.compress(*given, block_id_and_param_type=copy.deepcopy(kinds), return_bitstream=True, **settings, **more)

    def decode():
        return nnc.decompress(bytearray(stream), reconstruct_lsa=bool(kinds), reconstruct_bnf=bool(kinds),
                              block_id_and_param_type=copy.deepcopy(kinds))  # fmt: skip

    stream, encoding = best(encode, repeats)
    quantizing = best(lambda: encode(quantize_only=True), repeats)[1]
    decoded, decoding = best(decode, repeats)
    return decoded, {"bytes": len(stream), "encode": encoding, "quantize": quantizing, "decode": decoding}


def main():
    import numpy as np

    given = json.loads(sys.stdin.read())
    nnc = codec()
    with np.load(given["weights"]) as kept:
        weights = {name: kept[name] for name in kept.files}
    with contextlib.redirect_stdout(sys.stderr):
        decoded, cost = run(nnc, weights, given["blocks"], given["settings"], given["repeats"])
    np.savez(given["out"], **decoded)
    print(json.dumps(cost))


if __name__ == "__main__":
    main()
