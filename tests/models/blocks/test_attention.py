"""Attention blocks equal other libraries' with the same weights, or a calculation by other means."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from models.blocks import attention
from models.blocks.attention import CBAM, ECA, SE, SOCA, CoordAtt, CovarianceRoot, MobileMQA, SimAM
from models.common import C3
from models.flops import count_gflops
from models.yolo import DetectionModel

BLOCKS = ("SE", "CBAM", "CoordAtt", "ECA", "SOCA", "SimAM", "MobileMQA")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def x() -> torch.Tensor:
    """Maps of 64 channels, each with a mean and a spread of its own."""
    return torch.randn(2, 64, 7, 5) * (0.2 + torch.rand(2, 64, 1, 1)) + torch.randn(2, 64, 1, 1)


def equal(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    """The same weights in the order of their registration, the same output, and one that differs from the input."""
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                tensor.uniform_(0.5, 1.5)
    weights = list(theirs.state_dict().values())
    assert [t.shape for t in weights] == [t.shape for t in ours.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), weights, strict=True)))
    with torch.no_grad():
        expected = theirs.eval()(x)
        torch.testing.assert_close(ours.eval()(x), expected, rtol=0, atol=1e-6)
    assert (expected - x).abs().max() > 0.05


@pytest.mark.parametrize("gate", [nn.Sigmoid, nn.Hardsigmoid])
def test_se_is_torchvisions(gate, x):
    theirs = torchvision.ops.SqueezeExcitation(64, 16, scale_activation=gate)
    equal(SE(64, 4, gate=gate()), theirs, x * 4)


def test_eca_is_timms(x):
    layers = pytest.importorskip("timm.layers")
    for channels in (8, 64, 512):
        equal(ECA(channels), layers.EcaModule(channels), x.repeat(1, 8, 1, 1)[:, :channels])


def test_eca_looks_at_the_neighbours_only():
    block = ECA(64, k=3)
    x = torch.ones(1, 64, 4, 4)
    changed = x.clone()
    changed[0, 20] = 2
    with torch.no_grad():
        factors = (block(changed) / changed - block(x) / x).abs().amax((2, 3))[0]
    assert factors.nonzero().flatten().tolist() == [19, 20, 21]


def test_cbam_is_timms(x):
    cbam = pytest.importorskip("timm.layers.cbam")
    theirs = cbam.CbamModule(64, rd_ratio=1 / 4)
    theirs.spatial.conv.bn = nn.Identity()  # the paper's equation has none
    equal(CBAM(64, 4), theirs, x)


def test_coordatt_is_timms(x):
    coord_attn = pytest.importorskip("timm.layers.coord_attn")
    theirs = coord_attn.CoordAttn(64, rd_channels=8)
    theirs.conv_h = nn.Conv2d(8, 64, 1)  # with the bias of the authors' code
    theirs.conv_w = nn.Conv2d(8, 64, 1)
    equal(CoordAtt(64), theirs, x)


@pytest.mark.parametrize("kv_stride", [1, 2])
def test_mobile_mqa_is_timms(kv_stride, x):
    blocks = pytest.importorskip("timm.models._efficientnet_blocks")
    theirs = blocks.MobileAttention(
        64,
        64,
        num_heads=4,
        key_dim=16,
        value_dim=16,
        use_multi_query=True,
        kv_stride=kv_stride,
        layer_scale_init_value=1,
    )
    ours = MobileMQA(64, heads=4, kv_stride=kv_stride)
    assert (ours.scale == 1e-5).all()
    weights = {k: v for k, v in theirs.state_dict().items() if k != "layer_scale.gamma"}
    ours.scale.data = torch.rand(64, 1, 1) + 0.5
    theirs.layer_scale.gamma.data = ours.scale.data.flatten()
    names = [k for k in ours.state_dict() if k != "scale"]
    assert len(names) == len(weights)
    ours.load_state_dict(dict(zip(names, weights.values(), strict=True)) | {"scale": ours.scale.data})
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=1e-5)


def test_mobile_mqa_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="64 channels do not divide among 3 heads"):
        MobileMQA(64, heads=3)


def test_soca_by_eigenvalues():
    # positions enough for a covariance of full rank, and iterations enough to reach its root
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64).float()
    root = CovarianceRoot(6, iterations=20)(x)
    for sample, found in zip(x.double(), root, strict=True):
        values, vectors = torch.linalg.eigh(torch.cov(sample.flatten(1), correction=0))
        expected = vectors @ values.sqrt().diag() @ vectors.T
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)

    block = SOCA(6)
    block.covariance.iterations = 20
    statistics = root.mean(1)
    hidden = (statistics @ block.fc1.weight[:, :, 0, 0].T + block.fc1.bias).relu()
    gate = (hidden @ block.fc2.weight[:, :, 0, 0].T + block.fc2.bias).sigmoid()
    torch.testing.assert_close(block(x), x * gate[:, :, None, None], rtol=0, atol=1e-5)


def test_five_iterations_come_near_the_root():
    x = torch.randn(1, 16, 20, 20)
    near, exact = CovarianceRoot(16)(x), CovarianceRoot(16, iterations=20)(x)
    assert (near - exact).norm() / exact.norm() < 0.05


def test_soca_stays_finite_where_nothing_varies_and_in_half_precision():
    block = SOCA(16)
    flat = torch.full((1, 16, 4, 4), 3.0, requires_grad=True)
    block(flat).sum().backward()
    assert flat.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in block.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = CovarianceRoot(16)(torch.randn(1, 16, 8, 8))
    assert y.dtype == torch.float32 and y.isfinite().all()


def test_simam_by_its_definition(x):
    # eq. 5 of the paper, value by value: low energy (distinct) → large factor
    lam = 1e-4
    out = SimAM(64)(x)
    for b, c, i, j in ((0, 0, 0, 0), (1, 17, 3, 4), (1, 63, 6, 2)):
        values = [v.item() for v in x[b, c].flatten()]
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
        t = x[b, c, i, j].item()
        energy = 4 * (variance + lam) / ((t - mean) ** 2 + 2 * variance + 2 * lam)
        assert out[b, c, i, j].item() == pytest.approx(t / (1 + math.exp(-1 / energy)), rel=1e-4)


def test_simam_has_no_parameters_and_takes_a_single_position():
    block = SimAM(8)
    assert not list(block.parameters())
    assert block(torch.randn(1, 8, 1, 1)).isfinite().all()


def test_multi_query_is_attention_with_shared_keys_and_values():
    q, k, v = torch.randn(2, 3, 10, 8), torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    expected = F.scaled_dot_product_attention(q, *(t[:, None].expand(-1, 3, -1, -1) for t in (k, v)))
    torch.testing.assert_close(attention.MultiQuery()(q, k, v), expected)


@pytest.mark.parametrize("name", BLOCKS)
def test_inside_c3_it_weighs_every_bottleneck(name, x):
    block = getattr(attention, f"C3{name}")(64, 64, 2).eval()
    assert [type(b.attention).__name__ for b in block.m] == [name] * 2
    for bottleneck in block.m:
        if name == "MobileMQA":
            bottleneck.attention.scale.data.fill_(1)  # starts at 1e-5
    plain = C3(64, 64, 2).eval()
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if ".attention." not in k})
    seen = []
    hooks = [b.attention.register_forward_hook(lambda m, given, out: seen.append(out - given[0])) for b in block.m]
    with torch.no_grad():
        with_attention, without = block(x), plain(x)
        assert len(seen) == 2 and all(change.abs().max() > 0 for change in seen)
        for hook, bottleneck in zip(hooks, block.m, strict=True):
            hook.remove()
            bottleneck.attention = nn.Identity()
        torch.testing.assert_close(block(x), without)
    assert (with_attention - without).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "layer", "products"),
    [
        # covariance 512²·400, then 13 products of 512³; keys and values at 10×10, each 400·100 for 512 channels
        ("SOCA", 9, 512**2 * 400 + 13 * 512**3),
        ("MobileMQA", 9, 2 * 400 * 100 * 512),
    ],
)
def test_flops_count_the_products_of_maps(name, layer, products, monkeypatch):
    model = DetectionModel(f"yolov5s_{name}.yaml")
    counted = count_gflops(model)
    inner = next(m for m in model.model[layer].modules() if hasattr(m, "multiply_adds"))
    monkeypatch.setattr(type(inner), "multiply_adds", lambda self, *inputs: 0)
    assert counted - count_gflops(model) == pytest.approx(2 * products / 1e9, rel=1e-9)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_yaml_has_it_before_sppf_and_all_else_is_stock(name):
    rows = DetectionModel(f"yolov5s_{name}.yaml").rows
    assert [r.block for r in rows[8:11]] == ["C3", name, "SPPF"]
    stock = DetectionModel("yolov5s.yaml").rows
    moved = [[s + (s >= 9) for s in r.source_indices()] for r in stock]
    moved[9] = [9]
    others = rows[:9] + rows[10:]
    assert [r.source_indices() for r in others] == moved
    assert [(r.block, r.parameters, r.shape) for r in others] == [(r.block, r.parameters, r.shape) for r in stock]
