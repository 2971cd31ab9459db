"""What every driver that quantizes a ResNet does: read its task, quantize, run the test images, say what came out.

Standard input is one JSON object: `root`, the repository; `state`, an .npz file of the network's arrays; `blocks`, of a stage;
`calibration` and `images`, .npy files; `bits` of weights; `settings` of the driver; `threads`; `out`, the .npz file to write.
In it is the class that the quantized network gives each image; a line of JSON has the processor seconds of quantizing, and of
every weight its elements, its bits and the numbers of its scale. Weights that have more different values in a channel than
their bits allow are an error. Quantizing takes no more than `most` seconds of the processor: then the line only says so.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass

import numpy as np

BATCH = 250


@dataclass
class Layer:
    """A weight as it is after quantizing (channels first), its bits, and how many numbers say what its codes mean."""

    name: str
    weight: np.ndarray
    bits: int
    scales: int

    def row(self):
        """What is told of it."""
        levels = max(len(np.unique(channel)) for channel in self.weight.reshape(len(self.weight), -1))
        if levels > 2**self.bits:
            raise ValueError(f"{self.name}: {levels} different weights in a channel are more than {self.bits} bits hold")
        return [self.name, int(self.weight.size), int(self.bits), int(self.scales)]


def network(task):
    """The float network in eval mode."""
    import torch

    sys.path.insert(0, task["root"])
    from bench.resnet import ResNet

    net = ResNet(task["blocks"])
    with np.load(task["state"]) as kept:
        net.load_state_dict({name: torch.from_numpy(kept[name]) for name in kept.files})
    return net.eval()


def classes(predict, images):
    """The class that `predict` gives each image."""
    return np.concatenate([np.asarray(predict(images[at : at + BATCH])).argmax(1) for at in range(0, len(images), BATCH)])


def torch_predict(net):
    """A torch network as a function of arrays."""
    import torch

    def predict(images):
        with torch.no_grad():
            return net(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    return predict


def folded(net):
    """The network with each batch norm folded into the convolution before it, as a copy."""
    import copy

    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    net = copy.deepcopy(net)
    for block in [net, *(b for stage in (net.layer1, net.layer2, net.layer3) for b in stage)]:
        for conv in [name for name, _ in block.named_children() if name.startswith("conv")]:
            norm = conv.replace("conv", "bn")
            setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
            setattr(block, norm, torch.nn.Identity())
    return net


def exported(net, path):
    """The float network as an ONNX file for any number of images; the name of its input."""
    import torch

    given = torch.zeros(2, 3, 32, 32)
    shapes = ({0: torch.export.Dim("n", min=1, max=4096)},)
    torch.onnx.export(
        net, (given,), str(path), input_names=["x"], dynamo=True, external_data=False, dynamic_shapes=shapes, verbose=False
    )
    return "x"


def limit(seconds):
    """End this process with a line that says so once it has taken so many seconds of the processor; 0 for no limit."""

    def cut(number, where):
        os.write(1, b"\n" + json.dumps({"cut": seconds}).encode() + b"\n")
        os._exit(0)

    signal.signal(signal.SIGXCPU, cut)
    most = int(time.process_time() + seconds) if seconds else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def main(quantize):
    """Run `quantize(net, calibration, bits, settings)`, which gives a function of images and the layers, on the task."""
    task = json.loads(sys.stdin.read())
    import torch

    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - peers draw from it
    with contextlib.redirect_stdout(sys.stderr):
        net, calibration = network(task), np.load(task["calibration"])
        limit(task["most"])
        began = time.process_time()
        predict, layers = quantize(net, calibration, task["bits"], task["settings"])
        seconds = time.process_time() - began
        limit(0)
        found = classes(predict, np.load(task["images"], mmap_mode="r"))
    np.savez_compressed(task["out"], classes=found.astype(np.uint8))
    print(json.dumps({"seconds": seconds, "layers": [layer.row() for layer in layers]}))
