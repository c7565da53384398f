"""Which layers does autograd always differentiate correctly? Two small networks, before any training."""

import torch
from torch import nn

import fxcheck

EXAMPLE = torch.randn(2, 3, 16, 16)  # only shape and dtype matter

POOLED = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
)  # fmt: skip

STRIDED = nn.Sequential(
    nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
    nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
)  # fmt: skip


def main() -> None:
    for name, model in (("with a max-pool", POOLED), ("with a strided convolution", STRIDED)):
        report = fxcheck.analyze(model, (EXAMPLE,))
        print(f"{name}: {report.verdict} by {report.theorem}")
        for layer in report.layers:
            print(f"  {layer.name} {layer.activation}: {layer.verdict} by {layer.theorem}")
            for finding in layer.diagnostics:
                print(f"    {finding.code} {finding.message}\n    try: {finding.hint}")


if __name__ == "__main__":
    main()
