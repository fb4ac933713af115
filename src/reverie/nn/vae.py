"""The vision model V of World Models (Ha and Schmidhuber, 2018): a convolutional variational autoencoder."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from reverie.errors import ConfigError
from reverie.nn.layers import GLOROT, Linear
from reverie.ops.mixtures import gaussian_kl_to_standard

IMAGE = (64, 64, 3)
"""Height, width and channels of the images; the kernels fit no other size."""

# (input channels, output channels, side of the kernel); all strides are 2, without padding.
_ENCODER = ((3, 32, 4), (32, 64, 4), (64, 128, 4), (128, 256, 4))
_DECODER = ((1024, 128, 5), (128, 64, 5), (64, 32, 6), (32, 3, 6))


class StridedConvolution(nn.Module):
    """Square convolution with stride 2 and no padding on images with the channels last: [N, H, W, C] -> [N, H', W', K].

    H' = floor((H - kernel) / 2) + 1; transposed, H' = 2 (H - 1) + kernel.

    Args:
        inputs: channels C.
        outputs: channels K.
        kernel: side of the kernel.
        transposed: a transposed convolution, which enlarges the image.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, transposed: bool = False) -> None:
        super().__init__()
        shape = (inputs, outputs) if transposed else (outputs, inputs)
        # The kernels of the CPU are about a tenth faster with the channels last in images and weights.
        weight = torch.empty(*shape, kernel, kernel).contiguous(memory_format=torch.channels_last)
        GLOROT.fill(weight, inputs * kernel**2, outputs * kernel**2)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, H', W', K], in the dtype of `x`."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if self.transposed and x.shape[1:3] == (1, 1):
            # One pixel touches every output once: a matrix product, which saves a quarter of a training step.
            side = weight.shape[-1]
            y = x.flatten(1) @ weight.permute(0, 2, 3, 1).flatten(1)
            return y.unflatten(1, (side, side, -1)) + bias
        convolve = functional.conv_transpose2d if self.transposed else functional.conv2d
        return convolve(x.permute(0, 3, 1, 2), weight, bias, stride=2).permute(0, 2, 3, 1)


class ConvVAE(nn.Module):
    """Compresses a 64x64 color image to Z normally distributed numbers.

    World Models, appendix "Variational Autoencoder"; the floor of the divergence is that of the released code.

    Encoder: four convolutions with ReLU (sides 31, 14, 6, 2), then mean and log-variance. Decoder: a linear layer to
    1024 channels, then four transposed convolutions (sides 5, 13, 30, 64), ReLU between them, a sigmoid at the end.
    Kernels are Glorot-uniform, biases zero. 4,348,547 parameters with Z = 32 (CarRacing), 4,446,915 with Z = 64.

    Args:
        latent: Z.
        free_nats: floor of the KL divergence a latent dimension; 0.5 in the released code.
    """

    def __init__(self, latent: int, free_nats: float = 0.5) -> None:
        super().__init__()
        self.latent, self.floor = latent, free_nats * latent
        self.encoder = nn.ModuleList(StridedConvolution(*sizes) for sizes in _ENCODER)
        self.mean = Linear(1024, latent, GLOROT)
        self.log_variance = Linear(1024, latent, GLOROT)
        self.expand = Linear(latent, 1024, GLOROT)
        self.decoder = nn.ModuleList(StridedConvolution(*sizes, transposed=True) for sizes in _DECODER)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latents.

        Args:
            image: floats in [0, 1], [N, 64, 64, 3].

        Returns:
            Two float32 tensors [N, Z].

        Raises:
            ConfigError: the images have another size or are not floats.
        """
        if image.dim() != 4 or tuple(image.shape[1:]) != IMAGE:
            raise ConfigError(
                f"the autoencoder of World Models reads images [N, 64, 64, 3], but got {list(image.shape)}; "
                f"resize the images to 64x64 pixels with three colors"
            )
        if not image.is_floating_point():
            raise ConfigError(
                f"the autoencoder of World Models reads floats in [0, 1], but got {image.dtype}; "
                f"convert the images to float and divide by 255"
            )
        x = image
        for layer in self.encoder:
            x = functional.relu(layer(x))
        x = x.flatten(1)
        return self.mean(x).float(), self.log_variance(x).float()

    def sample(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Latents mean + exp(log_variance / 2) noise, with the gradient of both: [N, Z] twice -> [N, Z]."""
        return mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents: [N, Z] -> float32 [N, 64, 64, 3] in [0, 1]."""
        x = self.expand(latents)[:, None, None]
        for layer in self.decoder[:-1]:
            x = functional.relu(layer(x))
        return torch.sigmoid(self.decoder[-1](x).float())

    def loss(self, image: Tensor) -> dict[str, Tensor]:
        """The terms of the loss, whose sum is minimized.

        Args:
            image: floats in [0, 1], [N, 64, 64, 3].

        Returns:
            Scalars, means over the batch. `reconstruction`: squared error summed over pixels and colors, without a
            factor 1/2. `kl`: divergence from the standard normal, summed over dimensions, where the total of an image
            counts at least `free_nats` Z nats.

        Raises:
            ConfigError: as in `encode`.
        """
        mean, log_variance = self.encode(image)
        reconstruction = self.decode(self.sample(mean, log_variance))
        error = (reconstruction - image.float()).square().sum((1, 2, 3))
        divergence = gaussian_kl_to_standard(mean, log_variance).clamp(min=self.floor)
        return {"reconstruction": error.mean(), "kl": divergence.mean()}
