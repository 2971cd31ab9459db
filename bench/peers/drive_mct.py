"""Model Compression Toolkit (Sony) after training, its IMX500 target with weights of other widths too; see bench/quantizers.py.

settings: `widths` that layers may have, for a plan of so many bits in the mean (all have the same without); `epochs` of its
gradient-based rounding (EPTQ), none if 0; `points`, images that layers are compared on for the plan.
"""

import frame
import numpy as np
import torch

BATCH = 64


def stand_ins():
    """Two operators that torchvision wants and that no CPU build of torch has declared; nothing here calls them."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def capabilities(widths):
    """The target with kernels of these widths."""
    from model_compression_toolkit.target_platform_capabilities.constants import KERNEL_ATTR, WEIGHTS_N_BITS
    from model_compression_toolkit.target_platform_capabilities.tpc_models.imx500_tpc.v1_0 import tpc

    base, _, default = tpc.get_op_quantization_configs()
    kinds = [base.clone_and_edit(attr_to_edit={KERNEL_ATTR: {WEIGHTS_N_BITS: b}}) for b in widths]
    return tpc.generate_tpc(default_config=default, base_config=kinds[0], mixed_precision_cfg_list=kinds, name="imx500")


def quantize(net, calibration, bits, settings):
    """The quantized network as a function, and its layers."""
    kept = stand_ins()
    import model_compression_toolkit as mct

    def images():
        for at in range(0, len(calibration), BATCH):
            yield [calibration[at : at + BATCH]]

    widths = settings.get("widths", [bits])
    config, budget = mct.core.CoreConfig(), None
    if len(widths) > 1:
        size = sum(p.numel() for p in net.parameters() if p.ndim > 1)
        budget = mct.core.ResourceUtilization(weights_memory=size * bits / 8)
        config.mixed_precision_config = mct.core.MixedPrecisionQuantizationConfig(num_of_images=settings.get("points", 32))
    target = capabilities(sorted(widths, reverse=True))
    if settings.get("epochs"):
        learning = mct.gptq.get_pytorch_gptq_config(n_epochs=settings["epochs"])
        made, _ = mct.gptq.pytorch_gradient_post_training_quantization(
            net, images, budget, config, learning, target_platform_capabilities=target
        )
    else:
        made, _ = mct.ptq.pytorch_post_training_quantization(net, images, budget, config, target_platform_capabilities=target)
    del kept
    return frame.torch_predict(made.eval()), layers(made)


def layers(model):
    """The weights that a quantizer wraps."""
    found = []
    for name, module in model.named_modules():
        quantizers = getattr(module, "weights_quantizers", {})
        weights = module.get_quantized_weights() if quantizers else {}
        for attribute, quantizer in quantizers.items():
            weight = weights[attribute].detach().numpy()
            found.append(frame.Layer(name, weight, int(quantizer.num_bits), np.size(quantizer.threshold_np)))
    return found


if __name__ == "__main__":
    frame.main(quantize)
