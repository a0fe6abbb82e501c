"""CRF-RNN: a dense CRF as the last layer of a network, whose compatibilities are learned.

Zheng et al. 2015, "Conditional Random Fields as Recurrent Neural Networks". A step is one of mean
field: softmax, two filters, a mixture of the classes for each, one of both, logits again; gradients
go through all steps. The names of the parameters and their sign are those of the PyTorch port
(Caffe's and Keras' compatibilities are subtracted). Unlike the ports it takes any batch, image by
image, and runs on any device.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ...crf.dense_crf import crf_kernel
from ...crf.lattice import Lattice
from ...ops.permutohedral import permutohedral_filter


@cache
def _leave_to_python() -> None:
    """Keep compilers out of the layer, whose lattice is as large as the image is varied.

    Not before there is such a layer: it loads torch's compiler, which takes seconds.
    """
    CRFRNN.forward = torch.compiler.disable(CRFRNN.forward)  # type: ignore[method-assign]


class CRFRNN(nn.Module):
    """Logits in, logits out, drawn to the edges of the images.

    Args:
        num_classes: C.
        alpha: standard deviation of positions in the bilateral kernel, in pixels.
        beta: standard deviation of colours in it, in the units of the images.
        gamma: standard deviation of the spatial kernel, in pixels.
        train_iterations: steps in training.
        test_iterations: steps otherwise.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float = 160.0,
        beta: float = 3.0,
        gamma: float = 3.0,
        train_iterations: int = 5,
        test_iterations: int = 10,
    ) -> None:
        super().__init__()
        _leave_to_python()
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.train_iterations, self.test_iterations = train_iterations, test_iterations
        eye = torch.eye(num_classes)
        self.spatial_ker_weights = nn.Parameter(3 * eye)
        self.bilateral_ker_weights = nn.Parameter(5 * eye)
        self.compatibility_matrix = nn.Parameter(eye.clone())

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return logits (B, C, H, W), float32.

        Args:
            logits: (B, C, H, W).
            images: (B, 3, H, W) in steps of 8 bits, as `beta` counts; offsets and the order of
                channels do not matter. They get no gradients.

        Raises:
            ValueError: if shapes do not fit.
        """
        expected = (len(logits), 3, *logits.shape[2:])
        if logits.dim() != 4 or logits.shape[1] != len(self.compatibility_matrix):
            shape = f"(B, {len(self.compatibility_matrix)}, H, W)"
            raise ValueError(f"logits: expected {shape}, got {tuple(logits.shape)}")
        if images.shape != expected:
            raise ValueError(f"images: expected {expected}, got {tuple(images.shape)}")
        with torch.autocast(logits.device.type, enabled=False):
            pairs = zip(logits.float(), images.detach(), strict=True)
            refined = [self._refined(one, image) for one, image in pairs]
        return torch.stack(refined) if refined else logits.float()

    def _refined(self, logits: Tensor, image: Tensor) -> Tensor:
        start = logits.flatten(1).T.contiguous()
        colours = image.float().permute(1, 2, 0).cpu().numpy()
        bilateral = crf_kernel(
            colours, self.alpha, self.beta, normalisation="after", like=start.detach()
        )
        spatial = _spatial_kernel(*image.shape[1:], self.gamma, start.device)
        # Mixing for each kernel and for both is one linear map, in float32 as all else here.
        mixture = self.compatibility_matrix.float()
        for_near = (mixture @ self.spatial_ker_weights.float()).T
        for_like = (mixture @ self.bilateral_ker_weights.float()).T
        rows = start
        for _ in range(self.train_iterations if self.training else self.test_iterations):
            probs = rows.softmax(1)
            near = permutohedral_filter(probs, spatial) @ for_near
            rows = start + near + permutohedral_filter(probs, bilateral) @ for_like
        return rows.T.reshape(logits.shape)


@lru_cache(maxsize=4)
def _spatial_kernel(height: int, width: int, deviation: float, device: torch.device) -> Lattice:
    """Return the kernel of positions: the same for all images of a size."""
    image = np.empty((height, width, 3), np.uint8)
    like = torch.empty(0, device=device)
    return crf_kernel(image, deviation, normalisation="after", like=like)
