"""Brush strokes, curved polyhedra and real lesions: their geometry by independent means."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from scipy.spatial import cKDTree

from nnood.tasks.random_shapes import Lesion, Polyhedron, Stroke, _distance_to_path

CPU = torch.device("cpu")
EVERYWHERE = np.ones((3, 3))


def mask_of(shape: Stroke | Polyhedron | Lesion, size: tuple[int, ...], generator: torch.Generator) -> np.ndarray:
    return (shape(size, generator, CPU).depth > 0).numpy()


def templates(*blocks: tuple[slice, ...]) -> torch.Tensor:
    """One template of 32 voxels per axis with all of the blocks."""
    template = torch.zeros(1, 32, 32, 32, dtype=torch.uint8)
    for block in blocks:
        template[(0, *block)] = 255
    return template


class TestStroke:
    def test_number_of_points_and_length_of_steps(self, seeded):
        walks = [Stroke().walk(2, seeded(seed)) for seed in range(200)]
        counts = [len(walk) for walk in walks]
        assert min(counts) == 8
        assert max(counts) == 32
        lengths = np.concatenate([np.linalg.norm(np.diff(walk, axis=0), axis=1) for walk in walks])
        assert stats.kstest(lengths, stats.uniform(8, 16).cdf).pvalue > 1e-3

    def test_steps_go_to_alternating_sides_of_the_walks_direction(self, seeded):
        for seed in range(50):
            steps = np.diff(Stroke().walk(2, seeded(seed)), axis=0)
            turns = steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]
            assert (turns[::2] * turns[0] > 0).all()
            assert (turns[1::2] * turns[0] < 0).all()

    def test_no_step_bends_by_more_than_72_degrees(self, seeded):
        widest = 0.0
        for seed in range(50):
            steps = np.diff(Stroke().walk(2, seeded(seed)), axis=0)
            # Relative to the mean direction there is no jump from 180 to -180 degrees.
            along = steps.sum(axis=0)
            angles = np.degrees(np.arctan2(along[0] * steps[:, 1] - along[1] * steps[:, 0], steps @ along))
            one, other = angles[::2], angles[1::2]
            low, high = (one, other) if one.mean() < other.mean() else (other, one)
            assert low.max() <= high.min() + 1e-3
            # The walk's direction lies between the two sides, and no further than the bend from any step.
            assert angles.max() - low.max() <= 72 + 1e-3 or angles.max() - high.min() <= 72 + 1e-3
            assert high.max() - high.min() <= 72 + 1e-3
            assert low.max() - low.min() <= 72 + 1e-3
            assert angles.max() - angles.min() <= 144 + 2e-3
            widest = max(widest, angles.max() - angles.min())
        assert widest > 130

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_bends_are_uniform_about_the_walks_direction(self, seeded, monkeypatch, dimensions):
        monkeypatch.setattr("nnood.tasks.random_shapes.rotation", lambda _, dimensions, __: np.eye(dimensions))
        steps = [np.diff(Stroke().walk(dimensions, seeded(seed)), axis=0) for seed in range(100)]
        for walk in steps:
            assert (walk[::2, 1:] >= -1e-9).all()
            assert (walk[1::2, 1:] <= 1e-9).all()
        every = np.concatenate(steps).astype(float)
        angles = np.degrees(np.arctan2(np.linalg.norm(every[:, 1:], axis=1), every[:, 0]))
        assert stats.kstest(angles, stats.uniform(0, 72).cdf).pvalue > 1e-3

    def test_walks_without_bend_are_straight_and_go_everywhere(self, seeded):
        directions = []
        for seed in range(400):
            steps = np.diff(Stroke(bend=0).walk(2, seeded(seed)), axis=0)
            steps = steps / np.linalg.norm(steps, axis=1, keepdims=True)
            np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-5)
            directions.append(math.degrees(math.atan2(*steps[0].tolist())))
        assert stats.kstest(directions, stats.uniform(-180, 360).cdf).pvalue > 1e-3

    @pytest.mark.parametrize("dimensions", [1, 2, 3])
    def test_distances_to_a_path_by_brute_force(self, dimensions):
        rng = np.random.default_rng(0)
        path, points = rng.uniform(-1, 1, size=(7, dimensions)), rng.uniform(-1.5, 1.5, size=(400, dimensions))
        share = np.linspace(0, 1, 3000)[:, None]
        dense = np.concatenate([a + share * (b - a) for a, b in itertools.pairwise(path)])
        expected = cKDTree(dense).query(points)[0]
        np.testing.assert_allclose(_distance_to_path(points, path), expected, atol=1e-3)

    @pytest.mark.parametrize("width", [8.0, 16.0])
    def test_a_stroke_without_length_is_a_round_dot(self, seeded, width):
        dot = Stroke(points=(2, 2), length=(1e-3, 1e-3), width=(width, width))
        radius = width / 64
        for seed in range(10):
            depth = dot((128, 128), seeded(seed), CPU).depth
            assert (depth > 0).float().mean().item() == pytest.approx(math.pi * radius**2 / 4, rel=0.15)
            assert depth.max() > 0.7
        volume = (dot((48, 48, 48), seeded(0), CPU).depth > 0).float().mean().item()
        assert volume == pytest.approx(math.pi * radius**3 / 6, rel=0.3)

    def test_a_stroke_is_in_one_piece_and_keeps_within_its_box(self, seeded):
        for seed in range(30):
            mask = mask_of(Stroke(width=(8.0, 8.0)), (32, 32), seeded(seed))
            assert ndimage.label(mask, EVERYWHERE)[1] == 1
            # Beyond the faces it would have been reflected.
            larger = np.stack(np.meshgrid(*[np.linspace(-1.5, 1.5, 61)] * 2, indexing="ij")).reshape(2, -1).T
            depth = Stroke()._form(larger, seeded(seed))
            assert (depth[np.abs(larger).max(axis=1) > 1 + 1e-3] < 1e-3).all()
            assert (depth > 0).any()

    def test_strokes_lie_all_over_the_box(self, seeded):
        shares = np.mean([mask_of(Stroke(), (16, 16), seeded(seed)) for seed in range(400)], axis=0)
        quadrants = shares.reshape(2, 8, 2, 8).mean(axis=(1, 3))
        np.testing.assert_allclose(quadrants, shares.mean(), rtol=0.2)
        assert shares[1:-1, 1:-1].min() > 0

    def test_it_is_round_in_millimetres(self):
        assert Stroke().isotropic


class TestPolyhedron:
    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_the_border_passes_through_ten_vertices(self, seeded, dimensions):
        reached = []
        for seed in range(30):
            generator = seeded(seed)
            directions = torch.randn(10, dimensions, generator=generator).double().numpy()
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            distances = 0.4 + 0.6 * torch.rand(10, generator=generator).numpy()
            borders = Polyhedron()._borders(dimensions, 1, seeded(seed))(directions)
            np.testing.assert_allclose(borders[:, 0], distances, atol=1e-5)
            reached.extend(distances.tolist())
        assert min(reached) < 0.45
        assert max(reached) > 0.95

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_depth_falls_evenly_along_every_ray_from_the_middle(self, seeded, dimensions):
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(100, dimensions))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        steps = np.array([0.2, 0.4, 0.6, 0.8, 0.99])
        for seed in range(10):
            depths = np.stack([Polyhedron()._form(step * directions, seeded(seed)) for step in steps])
            border = steps[:, None] / (1 - depths)
            np.testing.assert_allclose(border, np.broadcast_to(border[0], border.shape), rtol=1e-4)
            assert border.min() >= 0.1 - 1e-5
            assert border.max() <= 1 + 1e-5
            # A curve, not a ball.
            assert border.max() - border.min() > 0.2

    def test_the_middle_is_the_core(self, seeded):
        assert Polyhedron()._form(np.zeros((1, 3)), seeded(0)).item() == pytest.approx(1, abs=1e-4)

    def test_nothing_is_inside_beyond_the_largest_distance(self, seeded):
        corners = np.array([[0.8, 0.8], [-0.9, 0.5], [0.0, 1.01]])
        for seed in range(20):
            assert (Polyhedron()._form(corners, seeded(seed)) <= 0).all()

    @pytest.mark.parametrize("size", [(32, 32), (24, 24, 24)])
    def test_one_is_in_one_piece(self, seeded, size):
        for seed in range(20):
            mask = mask_of(Polyhedron(distance=(0.6, 1.0)), size, seeded(seed))
            assert mask[tuple(n // 2 for n in size)]
            # A spike may be thinner than a voxel in between.
            pieces, _ = ndimage.label(mask, np.ones((3,) * len(size)))
            assert np.bincount(pieces.ravel())[1:].max() > 0.9 * mask.sum()

    def test_several_are_at_most_that_many_pieces(self, seeded):
        fine = np.stack(np.meshgrid(*[np.linspace(-1, 1, 128)] * 2, indexing="ij")).reshape(2, -1).T
        pieces = []
        for seed in range(60):
            depth = Polyhedron(distance=(0.7, 1.0), count=(2, 5))._form(fine, seeded(seed))
            mask = (depth > 0).reshape(128, 128)
            pieces.append(ndimage.label(mask, EVERYWHERE)[1])
            assert not mask[[0, -1]].any()
            assert not mask[:, [0, -1]].any()
        assert min(pieces) >= 1
        assert max(pieces) <= 5
        assert len(set(pieces)) >= 3

    def test_all_counts_are_equally_likely(self, seeded, monkeypatch, assert_share):
        calls = []
        original = Polyhedron._borders

        def recorded(shape, dimensions, count, generator):
            calls.append(count)
            return original(shape, dimensions, count, generator)

        monkeypatch.setattr(Polyhedron, "_borders", recorded)
        counts = []
        for seed in range(600):
            calls.clear()
            Polyhedron(count=(2, 5))._form(np.zeros((1, 2)), seeded(seed))
            counts.append(calls[0])
        assert set(counts) == {2, 3, 4, 5}
        for count in (2, 3, 4, 5):
            assert_share(counts.count(count), len(counts), 1 / 4)

    def test_several_are_smaller_and_lie_apart(self, seeded):
        one = np.mean([mask_of(Polyhedron(), (32, 32), seeded(seed)) for seed in range(40)], axis=0)
        several = np.mean([mask_of(Polyhedron(count=(2, 2)), (32, 32), seeded(seed)) for seed in range(40)], axis=0)
        assert one[16, 16] == 1
        assert several.max() < 0.9
        assert several.mean() < one.mean()


class TestLesion:
    # Two blocks that are not symmetric about anything, within the ball that touches the cube.
    UNEVEN = templates(
        (slice(12, 22), slice(7, 16), slice(10, 24)),
        (slice(18, 24), slice(16, 24), slice(12, 18)),
    )

    def test_volume_is_the_templates_however_it_is_turned(self, seeded):
        share = (self.UNEVEN > 127).float().mean().item()
        drawn = [mask_of(Lesion(self.UNEVEN), (40, 40, 40), seeded(seed)) for seed in range(25)]
        np.testing.assert_allclose([mask.mean() for mask in drawn], share, rtol=0.06)
        middles = np.array([ndimage.center_of_mass(mask) for mask in drawn]) / 40 - 0.5
        assert (np.ptp(middles, axis=0) > 0.1).all()

    def test_it_is_as_deep_as_its_template_is_bright(self, seeded):
        even = torch.full((1, 32, 32, 32), 204, dtype=torch.uint8)
        depth = Lesion(even)((20, 20, 20), seeded(0), CPU).depth
        torch.testing.assert_close(depth, torch.full_like(depth, 2 * 204 / 255 - 1))

    @pytest.mark.parametrize("size", [(32, 32), (1, 32, 32), (1, 40)])
    def test_every_section_hits_the_lesion(self, seeded, size):
        off = templates((slice(3, 8), slice(14, 19), slice(12, 18)))
        for seed in range(60):
            depth = Lesion(off)(size, seeded(seed), CPU).depth
            # A shape that missed the grid would have been given a single voxel of depth 1, and no negative depth.
            assert (depth > 0).any()
            assert (depth < 0).any()

    def test_sections_are_no_larger_than_the_lesion(self, seeded):
        radius = 0.5
        z, y, x = torch.meshgrid(*[(torch.arange(32) + 0.5) / 16 - 1] * 3, indexing="ij")
        ball = ((z**2 + y**2 + x**2 < radius**2).to(torch.uint8) * 255)[None]
        areas = [mask_of(Lesion(ball), (64, 64), seeded(seed)).mean() for seed in range(100)]
        assert max(areas) == pytest.approx(math.pi * radius**2 / 4, rel=0.05)
        # The distance of the section from the middle is that of a random voxel: areas of r^2 - d^2.
        assert np.mean(areas) == pytest.approx(math.pi * radius**2 / 4 * 0.8, rel=0.07)

    def test_all_templates_are_drawn(self, seeded, assert_share):
        small, large = templates((slice(12, 20),) * 3), templates((slice(8, 24),) * 3)
        both = Lesion(torch.cat([small, large]))
        volumes = np.array([mask_of(both, (16, 16, 16), seeded(seed)).mean() for seed in range(300)])
        assert_share(int((volumes > 0.06).sum()), 300, 1 / 2)

    def test_half_of_them_are_mirrored(self, seeded, assert_share):
        """Three blobs of different sizes on three axes: the sign of their volume tells the hand."""
        blobs = templates(
            (slice(22, 30), slice(12, 20), slice(12, 20)),
            (slice(13, 19), slice(23, 29), slice(13, 19)),
            (slice(14, 18), slice(14, 18), slice(24, 28)),
        )
        mirrored = 0
        for seed in range(200):
            pieces, count = ndimage.label(mask_of(Lesion(blobs), (24, 24, 24), seeded(seed)))
            sizes = np.bincount(pieces.ravel())[1:]
            largest = np.argsort(sizes)[::-1][:3] + 1
            assert count >= 3
            middles = np.array(ndimage.center_of_mass(pieces > 0, pieces, largest)) - 11.5
            mirrored += np.linalg.det(middles) < 0
        assert_share(mirrored, 200, 1 / 2)

    def test_its_proportions_are_kept(self):
        assert Lesion(self.UNEVEN).isotropic
