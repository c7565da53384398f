"""Fourier transforms, and the matrix functions that are analytic wherever they are finite."""

from __future__ import annotations

from fxcheck.ops.common import LINEAR, SMOOTH, aten, unknown
from fxcheck.ops.registry import constant_semantics
from fxcheck.records.semantics import Kind, OpSemantics

constant_semantics(
    aten(
        "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn "
        "fft_ifftn fft_rfftn fft_irfftn stft stft.center istft"
    ),
    LINEAR,
)
constant_semantics(aten("fft_fftshift fft_ifftshift"), OpSemantics(Kind.STRUCTURAL))
constant_semantics(
    aten(
        "logdet inverse linalg_inv linalg_solve linalg_solve_triangular linalg_matrix_power matrix_power "
        "linalg_matrix_exp matrix_exp vander linalg_vander"
    ),
    SMOOTH,
)
constant_semantics(aten("slogdet linalg_slogdet"), OpSemantics(Kind.SMOOTH, discrete_outputs=(0,)))
constant_semantics(
    aten("det linalg_det"), unknown("its backward at singular matrices is an approximation; logdet is smooth where finite")
)
constant_semantics(
    aten("linalg_cholesky cholesky cholesky_solve cholesky_inverse"),
    unknown("it reads one triangle of its operand while backward returns a symmetric gradient"),
)
constant_semantics(
    aten(
        "linalg_svd linalg_svdvals svd linalg_eigh linalg_eigvalsh linalg_eig linalg_eigvals linalg_qr linalg_lstsq "
        "linalg_pinv pinverse"
    ),
    unknown("it is not differentiable where singular values or eigenvalues coincide, or the rank changes"),
)
