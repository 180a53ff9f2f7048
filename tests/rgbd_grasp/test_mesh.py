import numpy as np
import pytest

from paperlab.rgbd_grasp.geometry.intersections import cross_segments, distances_to_triangles
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.rotations import random_rotations, rigid
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid, mesh_sdf, read_sdf, write_sdf
from paperlab.rgbd_grasp.geometry.shapes import box, cylinder, sphere
from tests.rgbd_grasp import reference

SHAPES = {"box": box(0.04, 0.06, 0.1), "cylinder": cylinder(0.03, 0.1), "sphere": sphere(0.03)}


@pytest.mark.parametrize(
    ("name", "area", "volume"),
    [
        ("box", 2 * (0.04 * 0.06 + 0.04 * 0.1 + 0.06 * 0.1), 0.04 * 0.06 * 0.1),
        ("cylinder", 2 * np.pi * 0.03 * 0.13, np.pi * 0.03**2 * 0.1),
        ("sphere", 4 * np.pi * 0.03**2, 4 / 3 * np.pi * 0.03**3),
    ],
)
def test_solids_are_closed_and_of_the_right_size(name, area, volume):
    mesh = SHAPES[name]
    assert mesh.is_watertight
    assert mesh.face_areas.sum() == pytest.approx(area, rel=3e-3)
    a, b, c = mesh.triangles.swapaxes(0, 1)
    assert np.einsum("ij,ij->", np.cross(a, b), c) / 6 == pytest.approx(volume, rel=3e-3)


def test_a_hole_or_a_flipped_face_is_not_watertight():
    mesh = SHAPES["sphere"]
    assert not Mesh(mesh.vertices, mesh.faces[1:]).is_watertight
    flipped = mesh.faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert not Mesh(mesh.vertices, flipped).is_watertight
    separate = Mesh(mesh.triangles.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3))
    assert separate.is_watertight  # vertices that coincide are one


def test_smooth_normals_follow_the_solid_and_stop_at_creases():
    points, normals = SHAPES["sphere"].sample(500, np.random.default_rng(0))
    radial = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", normals, radial).min() > np.cos(np.deg2rad(0.2))
    points, normals = SHAPES["box"].sample(500, np.random.default_rng(0))
    np.testing.assert_allclose(np.sort(np.abs(normals), axis=1), np.tile([0.0, 0.0, 1.0], (500, 1)), atol=1e-12)
    assert (np.einsum("ij,ij->i", points, normals) > 0).all()


def test_samples_are_spread_by_area():
    points, _ = SHAPES["box"].sample(20_000, np.random.default_rng(0))
    top = np.isclose(points[:, 2], 0.05).mean()
    assert top == pytest.approx(0.04 * 0.06 / SHAPES["box"].face_areas.sum(), abs=0.01)


def segments(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(scale=0.06, size=(2, count, 3))


@pytest.mark.parametrize("name", SHAPES)
def test_first_hits_equal_a_loop_over_all_triangles(name):
    mesh, (start, end) = SHAPES[name], segments()
    hits = mesh.first_hits(start, end)
    count = len(mesh.faces)
    for i in range(0, len(start), 5):
        one, step = np.tile(start[i], (count, 1)), np.tile(end[i] - start[i], (count, 1))
        assert hits.fractions[i] == cross_segments(one, step, mesh.triangles)[0].min()
    hit = hits.faces >= 0
    assert 0 < hit.sum() < len(hit)
    assert np.isnan(hits.points[~hit]).all()
    corner = mesh.triangles[hits.faces[hit], 0]
    offset = np.einsum("ij,ij->i", hits.points[hit] - corner, mesh.face_normals[hits.faces[hit]])
    assert np.abs(offset).max() < 1e-12


def test_hits_on_a_sphere_are_the_analytic_ones():
    start, end = segments(2000)
    hits = sphere(0.03, 5).first_hits(start, end)
    step = end - start
    a, b, c = (step**2).sum(1), 2 * (start * step).sum(1), (start**2).sum(1) - 0.03**2
    disc = b * b - 4 * a * c
    clear = disc / (4 * a) > 0.01**2  # rays that pass well inside
    roots = (-b[:, None] + np.array([-1, 1]) * np.sqrt(np.maximum(disc, 0))[:, None]) / (2 * a[:, None])
    first = np.where((roots >= 0) & (roots <= 1), roots, np.inf).min(axis=1)
    sure = clear & (np.abs(roots - np.clip(roots, 1e-3, 1 - 1e-3)).max(axis=1) == 0)
    assert sure.sum() > 20
    distance = np.abs(hits.fractions[sure] - first[sure]) * np.sqrt(a[sure])
    assert distance.max() < 1e-4


def test_hits_turn_with_the_mesh():
    mesh, (start, end) = SHAPES["cylinder"], segments()
    motion = rigid(random_rotations(1, np.random.default_rng(1))[0], (0.2, 0.1, 0.4))
    still = mesh.first_hits(start, end)
    moved = mesh.moved(motion).first_hits(*(p @ motion[:3, :3].T + motion[:3, 3] for p in (start, end)))
    both = np.isfinite(still.fractions) & np.isfinite(moved.fractions)
    assert both.sum() == np.isfinite(still.fractions).sum()
    np.testing.assert_allclose(moved.fractions[both], still.fractions[both], atol=1e-9)
    np.testing.assert_allclose(moved.normals[both], still.normals[both] @ motion[:3, :3].T, atol=1e-6)


def test_distance_to_a_triangle_equals_a_dense_search():
    rng = np.random.default_rng(0)
    triangles, points = rng.normal(size=(20, 3, 3)), rng.normal(size=(20, 3))
    u, v = np.meshgrid(*[np.linspace(0, 1, 400)] * 2)
    u, v = u[u + v <= 1], v[u + v <= 1]
    for point, (a, b, c), squared in zip(points, triangles, distances_to_triangles(points, triangles), strict=True):
        dense = a + u[:, None] * (b - a) + v[:, None] * (c - a)
        assert np.sqrt(squared) == pytest.approx(np.linalg.norm(dense - point, axis=1).min(), abs=5e-3)


def analytic(name, p):
    if name == "sphere":
        return np.linalg.norm(p, axis=-1) - 0.03
    half = np.array([0.02, 0.03, 0.05])
    q = np.abs(p) - half
    if name == "cylinder":
        q = np.stack([np.linalg.norm(p[..., :2], axis=-1) - 0.03, np.abs(p[..., 2]) - 0.05], axis=-1)
    return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(axis=-1), 0)


@pytest.mark.parametrize("name", SHAPES)
def test_signed_distances_of_solids(name):
    grid = mesh_sdf(SHAPES[name], cells=28)
    axes = [np.arange(n) * grid.cell_m + o for n, o in zip(grid.values.shape, grid.origin, strict=True)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    error = np.abs(grid.values - analytic(name, nodes))
    facets = {"box": 1e-9, "cylinder": 1e-4, "sphere": 1e-4}[name]
    near = np.abs(grid.values) < 4 * grid.cell_m
    assert error[near].max() < facets
    assert error.max() < 1.5 * grid.cell_m
    inside = analytic(name, nodes) < -1e-4
    assert (grid.values[inside] < 0).all()
    assert (grid.values[analytic(name, nodes) > 1e-4] > 0).all()
    p = np.random.default_rng(0).uniform(-0.02, 0.02, (200, 3))
    assert np.abs(grid.at(p) - analytic(name, p)).max() < grid.cell_m


def test_signed_distances_of_a_mesh_equal_the_evaluators():
    data = reference.load("scene_03")
    theirs, mesh = reference.sdf(data, 4), reference.mesh(data, 4)  # the mug
    rng = np.random.default_rng(0)
    cells = rng.uniform(1, np.array(theirs.values.shape) - 2, (4000, 3)).round()
    expected = theirs.values[tuple(cells.astype(int).T)]
    near = np.abs(expected) < 3.9 * theirs.cell_m
    ours = mesh.distances((theirs.origin + cells * theirs.cell_m)[near])
    np.testing.assert_allclose(ours, np.abs(expected[near]), atol=3e-4)


def test_trilinear_lookup_is_exact_on_a_linear_field():
    x, y, z = np.meshgrid(*[np.arange(6.0)] * 3, indexing="ij")
    grid = SdfGrid(2 * x - y + 0.5 * z - 3, np.array([1.0, 2.0, 3.0]), 0.5)
    p = np.random.default_rng(0).uniform([1, 2, 3], [3.5, 4.5, 5.5], (50, 3))
    c = (p - [1, 2, 3]) / 0.5
    np.testing.assert_allclose(grid.at(p), 2 * c[:, 0] - c[:, 1] + 0.5 * c[:, 2] - 3, atol=1e-12)


def test_far_from_the_grid_is_far_from_the_surface():
    grid = mesh_sdf(SHAPES["sphere"], cells=20)
    assert grid.at(np.array([[0.0, 0.0, 0.5]]))[0] == pytest.approx(0.47, abs=0.01)


def test_text_format_there_and_back(tmp_path):
    grid = SdfGrid(np.random.default_rng(0).normal(size=(3, 4, 5)), np.array([0.1, 0.2, 0.3]), 0.01)
    back = read_sdf(write_sdf(tmp_path / "a grid.sdf", grid))
    np.testing.assert_allclose(back.values, grid.values, rtol=1e-8)
    assert np.array_equal(back.origin, grid.origin)
    lines = (tmp_path / "a grid.sdf").read_text().splitlines()
    assert lines[0] == "3 4 5"
    assert float(lines[4]) == pytest.approx(grid.values[1, 0, 0])  # x runs fastest
    (tmp_path / "b.sdf").write_text("3 4\n")
    with pytest.raises(ValueError, match=r"b.sdf: .*needs sizes, origin, cell size"):
        read_sdf(tmp_path / "b.sdf")


def test_bad_meshes_and_grids_are_told():
    with pytest.raises(ValueError, match="refer to vertices 0 to 9, there are 3"):
        Mesh(np.eye(3), np.array([[0, 1, 9]]))
    with pytest.raises(ValueError, match="needs integers"):
        Mesh(np.eye(3), np.array([[0.0, 1.0, 2.0]]))
    with pytest.raises(ValueError, match="NaN"):
        Mesh(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="not watertight"):
        mesh_sdf(Mesh(np.eye(3), np.array([[0, 1, 2]])))
    with pytest.raises(ValueError, match="all values have one sign"):
        SdfGrid(np.ones((3, 3, 3)), np.zeros(3), 0.01)
