"""What a training on a CPU has compiled (--compile): the layers of a model, written so that the compiler makes fast code of them.

compile_model(model, device)     in place: its tensors keep their names, and it computes the same

On a CPU convolutions are oneDNN's, compiled or not, and what is between them waits for memory and for exponentials. Left to
itself the compiler takes these twice, since it saves memory, as a GPU would want it; it looks for the highest of 25 numbers one
by one; and it adds up an upsampled gradient by atomic additions. Compiled so, yolov5n trains no faster than it does without.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch._functorch.partitioners import default_partition

from engine.detection.compilation import compile_layers
from models.fuse import is_called_as_conv

try:
    from torch._inductor.custom_graph_pass import CustomPartitionerFn
except ImportError:
    CustomPartitionerFn = None

LOG2_E = 1.4426950408889634


def compile_model(model: nn.Module, device: torch.device) -> None:
    """Let ``model`` compile itself, in place, at its first batch. Raises UserError without a C++ compiler."""
    if device.type != "cpu":
        compile_layers(model)
        return
    suit_compiler(model)
    # not in every PyTorch; without it some of what is kept is computed again
    compile_layers(model, options={"custom_partitioner_fn": KeepAll()} if CustomPartitionerFn else None)


def suit_compiler(model: nn.Module) -> None:
    """Make BatchNorm with SiLU after it, max pooling and upsampling in ``model`` those of this file, in place.

    An activation is known to follow in Conv, stem, and what is called as they are, and in an nn.Sequential.
    """
    for module in list(model.modules()):
        if is_called_as_conv(module):
            _join(module, "bn", "act")
        elif type(module) is nn.Sequential:
            names = list(module._modules)
            for norm, following in zip(names, names[1:], strict=False):
                _join(module, norm, following)
        elif _pools_plainly(module):
            module.__class__ = MaxPool2d
        elif _repeats(module):
            module.__class__ = Upsample


def _join(parent: nn.Module, norm: str, following: str) -> None:
    """Let a BatchNorm compute the SiLU after it."""
    bn, act = parent._modules.get(norm), parent._modules.get(following)
    if type(bn) is not nn.BatchNorm2d or type(act) is not nn.SiLU:
        return
    if bn.affine and bn.track_running_stats and bn.momentum is not None:
        bn.__class__ = NormalisedSiLU
        parent._modules[following] = nn.Identity()


def _pools_plainly(module: nn.Module) -> bool:
    if type(module) is not nn.MaxPool2d or module.dilation != 1 or module.ceil_mode or module.return_indices:
        return False
    return all(isinstance(number, int) for number in (module.kernel_size, module.stride, module.padding))


def _repeats(module: nn.Module) -> bool:
    """Whether it makes each pixel a square of pixels."""
    if type(module) is not nn.Upsample or module.mode != "nearest" or module.size is not None:
        return False
    return isinstance(module.scale_factor, int | float) and float(module.scale_factor).is_integer()


class NormalisedSiLU(nn.BatchNorm2d):
    """BatchNorm (1502.03167) and SiLU in one: [b, c, h, w] → the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = x.numel() // x.shape[1]
        # of one value there is no variance, which PyTorch says
        if not self.training or count == 1:
            return F.silu(super().forward(x))
        y, mean, variance = _NormalisedSiLU.apply(x, self.weight, self.bias, self.running_mean, self.eps)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return y


def _channels(values: torch.Tensor) -> torch.Tensor:
    """[c] → [c, 1, 1]."""
    return values[:, None, None]


class _NormalisedSiLU(torch.autograd.Function):
    """x [b, c, h, w], weight and bias [c], values [c] ``near`` the mean → SiLU of the normalised x, and mean and variance [c].

    The slope of SiLU is kept for the gradient, in the type of x, where autograd would keep what it takes to compute it anew:
    the exponential of each value is taken once.
    """

    @staticmethod
    def forward(
        ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, near: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # both sums in one pass, of what is left above a value near the mean: of large numbers nothing would be left of the
        # variance in their difference
        above = x.float() - _channels(near)
        offset = above.mean((0, 2, 3))
        variance = ((above * above).mean((0, 2, 3)) - offset * offset).clamp(0)
        mean = near + offset
        scale = (variance + eps).rsqrt()
        z = (x.float() - _channels(mean)) * _channels(scale * weight) + _channels(bias)
        # what the compiler sees as an exponential it computes on its own, into memory
        sigmoid = 1 / (1 + torch.exp2(z * -LOG2_E))
        slope = sigmoid + z * sigmoid * (1 - sigmoid)
        ctx.save_for_backward(x, mean, scale, weight, slope.to(x.dtype))
        ctx.mark_non_differentiable(mean, variance)
        return (z * sigmoid).to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx, gradient: torch.Tensor, *_: None) -> tuple[torch.Tensor | None, ...]:
        x, mean, scale, weight, slope = ctx.saved_tensors
        of_z, centred = gradient.float() * slope.float(), x.float() - _channels(mean)
        of_bias = of_z.sum((0, 2, 3))
        of_weight = (of_z * centred).sum((0, 2, 3)) * scale
        # what all values of a channel share through its mean and its variance
        factor, count = scale * weight, x.numel() // x.shape[1]
        through_variance = _channels(of_weight * scale * factor / count)
        of_x = of_z * _channels(factor) - centred * through_variance - _channels(of_bias * factor / count)
        return of_x.to(x.dtype), of_weight, of_bias, None, None


class MaxPool2d(nn.MaxPool2d):
    """PyTorch's own, which a compiled model calls, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return max_pool(x, self.kernel_size, self.stride, self.padding)[0]


def _pool(x: torch.Tensor, kernel: int, stride: int, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """→ the highest value of each window, and its place."""
    return torch.ops.aten.max_pool2d_with_indices(x, [kernel] * 2, [stride] * 2, [padding] * 2)


@torch.library.custom_op("detectors::max_pool_backward", mutates_args=())
def max_pool_backward(
    gradient: torch.Tensor, x: torch.Tensor, places: torch.Tensor, kernel: int, stride: int, padding: int
) -> torch.Tensor:
    """The gradient of x."""
    window = [kernel] * 2, [stride] * 2, [padding] * 2
    return torch.ops.aten.max_pool2d_with_indices_backward(gradient, x, *window, [1, 1], False, places)


@max_pool_backward.register_fake
def _(gradient, x, places, kernel, stride, padding):
    return torch.empty_like(x)


def _keep_places(ctx, inputs, output) -> None:
    x, *ctx.window = inputs
    ctx.save_for_backward(x, output[1])


def _pool_backward(ctx, gradient, _):
    x, places = ctx.saved_tensors
    return max_pool_backward(gradient, x, places, *ctx.window), None, None, None


max_pool = torch.library.custom_op("detectors::max_pool", _pool, mutates_args=())
# without values, too, it is the same
max_pool.register_fake(_pool)
max_pool.register_autograd(_pool_backward, setup_context=_keep_places)


class Upsample(nn.Upsample):
    """Each pixel as a square of pixels: the gradient is a sum over each square."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.shape
        side = int(self.scale_factor)
        return x[:, :, :, None, :, None].expand(b, c, h, side, w, side).reshape(b, c, h * side, w * side)


class KeepAll(CustomPartitionerFn or object):
    """Has a compiled model keep for the gradient what autograd keeps."""

    def __call__(self, graph, inputs, *, num_fwd_outputs: int, **_):
        return default_partition(graph, inputs, num_fwd_outputs=num_fwd_outputs)

    def uuid(self) -> str:
        """Code that was made with it is found again by this."""
        return default_partition.__name__
