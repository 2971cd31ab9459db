"""Brevitas after training: the functions of its own ImageNet example, on its `fx` backend; run by bench/quantizers.py.

settings: `method` (gptq, gpfq, qronos, learned or none), `order` by activations, rounds of `equalize`, `scales` from the range
(stats) or the squared error (mse), `weights` sym or asym, bits of the first and the last layer (`ends`), `iters` of learning.
"""

import argparse

import frame
import torch
import torch.nn.functional as F

ACTIVATIONS = 8
PERCENTILE = 99.999  # its default


def forward(self, x):
    """A block whose shortcut Brevitas can trace: pooling over single places takes every other one."""
    y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
    if self.stride > 1 or self.extra:
        x = F.pad(F.max_pool2d(x, 1, self.stride), (0, 0, 0, 0, self.extra // 2, self.extra // 2))
    return F.relu(x + y)


def learned(model, loader, settings):
    """Learned rounding, layer by layer, at its example's defaults but for the iterations."""
    from brevitas_examples.imagenet_classification.ptq import learned_round_utils

    args = argparse.Namespace(
        learned_round="hard_sigmoid",
        learned_round_block_name="",
        learned_round_loss="regularised_mse",
        learned_round_mode="layerwise",
        learned_round_iters=settings["iters"],
        learned_round_lr_scheduler=None,
        learned_round_lr=settings.get("lr", 1e-3),
        learned_round_batch_size=settings.get("batch", 1),
    )
    learned_round_utils.apply_learned_round(model=model, calibration_loader=loader, args=args)


def quantize(net, calibration, bits, settings):
    """The quantized network as a function, and its layers."""
    from brevitas.core.bit_width import BitWidthConst
    from brevitas.graph.quantize import preprocess_for_quantize
    from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
    from brevitas_examples.imagenet_classification.ptq import ptq_common as ptq

    type(net.layer1[0]).forward = forward
    images = torch.from_numpy(calibration)
    loader = [(batch, None) for batch in images.split(64)]
    rounds = settings.get("equalize", 20)
    model = preprocess_for_quantize(net, equalize_iters=rounds, equalize_merge_bias=True)
    model = ptq.quantize_model(
        model,
        backend="fx",
        weight_bit_width=bits,
        act_bit_width=ACTIVATIONS,
        bias_bit_width=None if settings["method"] == "learned" else 32,  # learning feeds layers plain numbers, without scales
        weight_quant_granularity="per_channel",
        act_quant_percentile=PERCENTILE,
        act_quant_type="sym",
        scale_factor_type="float_scale",
        quant_format="int",
        weight_narrow_range=False,
        weight_param_method=settings.get("scales", "stats"),
        weight_quant_type=settings.get("weights", "sym"),
    ).eval()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, QuantWeightBiasInputOutputLayer)}
    ends = settings.get("ends", bits)
    for layer in (*layers.values(),)[:: len(layers) - 1]:
        layer.weight_quant.tensor_quant.msb_clamp_bit_width_impl = BitWidthConst(ends)
    with torch.no_grad():
        model(images[:64])
    ptq.calibrate(loader, model)
    method, order = settings["method"], settings.get("order", False)
    if method == "gptq":
        ptq.apply_gptq(loader, model, act_order=order, create_weight_orig=True)
    elif method == "gpfq":
        ptq.apply_gpfq(loader, model, act_order=order)
    elif method == "qronos":
        ptq.apply_qronos(model, loader, act_order=order)
    elif method == "learned":
        learned(model, loader, settings)
    ptq.apply_bias_correction(loader, model)
    model.eval()
    return frame.torch_predict(model), [told(name, m) for name, m in layers.items()]


def told(name, module):
    """What a layer's weight is now."""
    with torch.no_grad():
        weight = module.quant_weight()
    moved = bool((weight.zero_point != weight.zero_point.flatten()[0]).any())
    scales = weight.scale.numel() * (2 if moved else 1)
    return frame.Layer(name, weight.value.numpy(), int(weight.bit_width), scales)


if __name__ == "__main__":
    frame.main(quantize)
