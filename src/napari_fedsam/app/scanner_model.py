"""Simulated scanners and the slice split of the demo: one real scan becomes several sites.

Nothing here imitates a particular device. The model is a chain of four well-known effects, in the
order in which they arise: tissue contrast, the receive coil's smooth bias field [2, 3], the
acquired in-plane resolution, and the Rician noise of magnitude images [1]. Whatever it produces is
named "simulated scanner ..." so that it is labelled as simulated wherever it appears.

References
----------
[1] H. Gudbjartsson and S. Patz. The Rician distribution of noisy MRI data. Magnetic Resonance in
    Medicine 34(6):910-914, 1995.
[2] J. G. Sled, A. P. Zijdenbos and A. C. Evans. A nonparametric method for automatic correction of
    intensity nonuniformity in MRI data. IEEE Transactions on Medical Imaging 17(1):87-97, 1998.
[3] K. Van Leemput, F. Maes, D. Vandermeulen and P. Suetens. Automated model-based bias field
    correction of MR images of the brain. IEEE Transactions on Medical Imaging 18(10):885-896, 1999.
"""

import dataclasses
import itertools

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_fedsam.imaging.scan import Scan

BIAS_ORDER = 3
"""Degree of the bias polynomial; [3] fits brain MR with polynomials of low degree."""

BRIGHTEST = 4095
"""The value that the brightest tissue gets, as in a 12-bit image."""

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


@dataclasses.dataclass(frozen=True)
class Scanner:
    """A simulated scanner; the defaults change nothing but the range of the values.

    Attributes
    ----------
    name : str
        What people see; begins with "simulated scanner".
    contrast : tuple of (float, float)
        Knots (input, output) of the piecewise-linear tissue contrast, both in 0..1 of the
        brightest tissue, inputs rising from 0 to 1.
    gamma : float
        Exponent applied after the knots, > 0; below 1 dark tissue gets brighter.
    bias : float
        Peak of the bias field: 0.3 lets the gain vary between 1 / 1.3 and 1.3. At least 0.
    noise : float
        Standard deviation of the noise in each of the two receive channels, as a share of the
        brightest tissue. At least 0.
    in_plane_spacing : float
        Spacing in mm at which a slice is acquired before interpolation to the scan's own; finer
        values than the scan's leave it as it is.
    """

    name: str
    contrast: tuple[tuple[float, float], ...] = ((0.0, 0.0), (1.0, 1.0))
    gamma: float = 1.0
    bias: float = 0.0
    noise: float = 0.0
    in_plane_spacing: float = 0.0

    def __post_init__(self) -> None:
        inputs = [knot[0] for knot in self.contrast]
        if inputs[0] != 0 or inputs[-1] != 1 or any(b <= a for a, b in itertools.pairwise(inputs)):
            raise ValueError(f"{self.name}: contrast inputs must rise from 0 to 1, got {inputs}.")
        if self.gamma <= 0 or self.bias < 0 or self.noise < 0 or self.in_plane_spacing < 0:
            raise ValueError(f"{self.name}: gamma must be positive and nothing negative.")


SCANNERS = (
    Scanner("simulated scanner A", bias=0.15, noise=0.02),
    Scanner(
        "simulated scanner B",
        contrast=((0.0, 0.0), (0.45, 0.35), (0.75, 0.7), (1.0, 1.0)),
        gamma=1.3,
        bias=0.5,
        noise=0.04,
    ),
    Scanner(
        "simulated scanner C",
        gamma=0.8,
        bias=0.25,
        noise=0.03,
        in_plane_spacing=2.6,
    ),
)
"""Three scanners for three sites: mild; strong contrast and bias; coarse, flat and noisy."""


def simulate_scanner(scan: Scan, scanner: Scanner, *, seed: int) -> Scan:
    """Return a grey scan as a simulated scanner would have recorded it.

    Parameters
    ----------
    scan : Scan
        Grey volume (z, y, x) of any real type; values below 0 count as background.
    scanner : Scanner
        The effects to apply.
    seed : int
        Seed of the bias field and the noise: the same scan, scanner and seed give the same pixels.

    Returns
    -------
    Scan
        The same grid and geometry, so that the scan's masks still fit; uint16, 0..65535, with the
        brightest tissue near `BRIGHTEST`. Its name says that it is simulated.

    Raises
    ------
    ValueError
        For a colour scan.
    """
    if scan.is_colour:
        raise ValueError(f"Only grey scans can be simulated, {scan.name} is in colour.")
    random = np.random.default_rng(seed)
    signal = _contrast(scan.pixels.astype(np.float64), scanner)
    signal *= bias_field(signal.shape, scanner.bias, random)
    recorded = _acquire(signal, scan, scanner, random)
    return dataclasses.replace(
        scan,
        pixels=np.clip(np.round(recorded * BRIGHTEST), 0, np.iinfo(np.uint16).max).astype(
            np.uint16
        ),
        name=f"{scan.name}, {scanner.name}",
    )


def _contrast(pixels: NDArray[np.float64], scanner: Scanner) -> NDArray[np.float64]:
    """Map values to 0..1 of the brightest tissue and apply the scanner's contrast."""
    tissue = pixels[pixels > 0]
    brightest = float(np.percentile(tissue, 99.5)) if tissue.size else 1.0
    inputs, outputs = zip(*scanner.contrast, strict=True)
    remapped = np.interp(np.clip(pixels / brightest, 0, 1), inputs, outputs)
    return np.asarray(remapped**scanner.gamma, dtype=np.float64)


def bias_field(
    shape: tuple[int, ...], peak: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a smooth multiplicative field: the exponential of a random low-order polynomial.

    Parameters
    ----------
    shape : tuple of int
        Shape of the field.
    peak : float
        The gain stays within 1 / (1 + peak) .. 1 + peak and reaches one of the two.
    random : np.random.Generator
        Source of the coefficients.
    """
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    grids = np.meshgrid(*axes, indexing="ij", sparse=True)
    exponent = np.zeros(shape)
    for powers in itertools.product(range(BIAS_ORDER + 1), repeat=len(shape)):
        if 0 < sum(powers) <= BIAS_ORDER:
            term: NDArray[np.float64] = np.array(random.normal())
            for grid, power in zip(grids, powers, strict=True):
                term = term * grid**power
            exponent += term
    largest = np.abs(exponent).max()
    if largest > 0:
        exponent *= np.log1p(peak) / largest
    return np.asarray(np.exp(exponent), dtype=np.float64)


def _acquire(
    signal: NDArray[np.float64], scan: Scan, scanner: Scanner, random: np.random.Generator
) -> NDArray[np.float64]:
    """Sample the signal at the acquired resolution, add noise there, and interpolate back."""
    native = sitk.GetImageFromArray(signal)
    native.SetSpacing(scan.spacing[::-1])
    through_plane = native.GetDimension() - 1 - scan.slice_axis
    spacing = [
        step if axis == through_plane else max(step, scanner.in_plane_spacing)
        for axis, step in enumerate(native.GetSpacing())
    ]
    if spacing == list(native.GetSpacing()):
        return add_rician_noise(signal, scanner.noise, random)
    acquired = _resample(_blur(native, spacing), spacing)
    noisy = sitk.GetImageFromArray(
        add_rician_noise(sitk.GetArrayFromImage(acquired), scanner.noise, random)
    )
    noisy.CopyInformation(acquired)
    back = sitk.Resample(noisy, native, sitk.Transform(), sitk.sitkLinear)
    return np.asarray(sitk.GetArrayFromImage(back), dtype=np.float64)


def _blur(image: sitk.Image, spacing: list[float]) -> sitk.Image:
    """Blur each axis that gets coarser by a Gaussian as wide (FWHM, mm) as its new voxels."""
    for axis, (old, new) in enumerate(zip(image.GetSpacing(), spacing, strict=True)):
        if new > old:
            image = sitk.RecursiveGaussian(image, sigma=new / FWHM_PER_SIGMA, direction=axis)
    return image


def _resample(image: sitk.Image, spacing: list[float]) -> sitk.Image:
    """Sample an image at another spacing, on a grid that covers its whole extent."""
    size = [
        int(np.ceil((n - 1) * old / new)) + 1
        for n, old, new in zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)
    ]
    grid = sitk.Image(size, image.GetPixelID())
    grid.SetSpacing(spacing)
    return sitk.Resample(
        image, grid, sitk.Transform(), sitk.sitkLinear, 0.0, useNearestNeighborExtrapolator=True
    )


def add_rician_noise(
    signal: NDArray[np.float64], sigma: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return the magnitude of a signal with Gaussian noise in both receive channels [1].

    Parameters
    ----------
    signal : NDArray[np.float64]
        Noise-free magnitude, any shape, at least 0.
    sigma : float
        Standard deviation of the noise in each channel, in the signal's units.
    random : np.random.Generator
        Source of the noise.
    """
    real = signal + random.normal(scale=sigma, size=signal.shape)
    return np.asarray(np.hypot(real, random.normal(scale=sigma, size=signal.shape)))
