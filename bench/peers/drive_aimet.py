"""Qualcomm's AIMET after training; run by bench/quantizers.py.

settings: `method` (adaround, seqmse or none), whether layers are equalized first (`equalize`), `steps` of AdaRound a layer,
`candidates` for the range of a weight (seqmse).
"""

import tempfile
from pathlib import Path

import frame
import torch

ACTIVATIONS = 8
BATCH = 64


def stand_ins():
    """Two operators that torchvision wants and that no CPU build of torch has declared; nothing here calls them."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def quantize(net, calibration, bits, settings):
    """The quantized network as a function, and its layers."""
    kept = stand_ins()
    import aimet_torch
    from aimet_torch.adaround.adaround_weight import Adaround, AdaroundParameters
    from aimet_torch.batch_norm_fold import fold_all_batch_norms
    from aimet_torch.common.defs import QuantScheme
    from aimet_torch.cross_layer_equalization import equalize_model
    from aimet_torch.model_preparer import prepare_model
    from aimet_torch.quantsim import QuantizationSimModel
    from aimet_torch.seq_mse import apply_seq_mse

    config = Path(aimet_torch.__file__).parent / "common" / "quantsim_config" / "default_config_per_channel.json"
    batches = list(torch.from_numpy(calibration).split(BATCH))
    one, method = batches[0][:1], settings["method"]
    net = prepare_model(net)
    if settings.get("equalize"):
        equalize_model(net, dummy_input=one)
    else:
        fold_all_batch_norms(net, None, dummy_input=one)
    kinds = {"quant_scheme": QuantScheme.post_training_tf_enhanced, "default_param_bw": bits, "config_file": str(config)}
    if method == "adaround":
        folder = tempfile.mkdtemp(dir=".")
        params = AdaroundParameters(batches, len(batches), settings["steps"], forward_fn=lambda model, x: model(x))
        net = Adaround.apply_adaround(
            net, one, params, folder, "made", bits, default_quant_scheme=kinds["quant_scheme"], default_config_file=str(config)
        )
    simulated = QuantizationSimModel(net, dummy_input=one, default_output_bw=ACTIVATIONS, **kinds)
    if method == "adaround":
        simulated.set_and_freeze_param_encodings(str(Path(folder) / "made.encodings"))
    elif method == "seqmse":
        apply_seq_mse(simulated, batches, num_candidates=settings["candidates"])
    with torch.no_grad():
        simulated.compute_encodings(lambda model: [model(batch) for batch in batches])
    del kept
    return frame.torch_predict(simulated.model.eval()), layers(simulated.model)


def layers(model):
    """The weights that have a quantizer."""
    found = []
    for name, module in model.named_modules():
        quantizers = getattr(module, "param_quantizers", {})
        if "weight" in quantizers and quantizers["weight"] is not None:
            quantizer = quantizers["weight"]
            with torch.no_grad():
                weight = quantizer(module.weight).dequantize()
            found.append(frame.Layer(name, weight.numpy(), int(quantizer.bitwidth), quantizer.get_scale().numel()))
    return found


if __name__ == "__main__":
    frame.main(quantize)
