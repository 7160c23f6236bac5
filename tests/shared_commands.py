"""Commands with a small network of features and parts of a few codes, by however many processes run this file."""

import sys

import torch
from torch import nn

from diffae import cli
from diffae.data import codes
from diffae.evaluation.suites import bench
from diffae.runtime import processes


class Means(nn.Module):
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def run(lines):
    before = codes.PART, bench.load_network
    codes.PART, bench.load_network = 8, lambda name, weights: (Means(), "means.pt")
    try:
        for line in lines.split(";"):
            cli.main(line.split())
    finally:
        codes.PART, bench.load_network = before
    print(f"number {processes.rank()} of {processes.count()}", file=sys.stderr)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1])
