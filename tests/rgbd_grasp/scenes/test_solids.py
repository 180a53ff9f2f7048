"""Solids: watertight, of known volume, their surface on their parts."""

import numpy as np
import pytest

from paperlab.rgbd_grasp.dataset.layout import SPLITS
from paperlab.rgbd_grasp.dataset.models import write_obj
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.rotations import rigid
from paperlab.rgbd_grasp.geometry.shapes import box, sphere
from paperlab.rgbd_grasp.scenes.assets import solid_from_file
from paperlab.rgbd_grasp.scenes.catalog import catalog, family_of, object_ids
from paperlab.rgbd_grasp.scenes.solids import Solid, capsule, hull, revolved, superquadric, union_mesh


def volume(mesh):
    a, b, c = mesh.triangles.swapaxes(0, 1)
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


def at(mesh, *where):
    return mesh.moved(rigid(np.eye(3), where))


def test_catalog_has_three_disjoint_families_that_a_hand_can_hold():
    solids = catalog()
    assert len(solids) >= 24
    assert len({solid.name for solid in solids.values()}) == len(solids)
    families = [set(object_ids(family)) for family in ("seen", "similar", "novel")]
    assert set.union(*families) == set(solids)
    assert sum(map(len, families)) == len(solids)
    assert min(map(len, families)) >= 8
    for solid in solids.values():
        assert solid.mesh.is_watertight, solid.name
        sides = np.ptp(solid.mesh.bounds, axis=0)
        assert sides.min() < 0.08, solid.name
        assert sides.max() < 0.12, solid.name
        assert volume(solid.mesh) > 5e-5, solid.name  # so faces are outward, too
    assert [family_of(split) for split in SPLITS] == ["seen", "seen", "similar", "novel"]


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (revolved([[0.03, -0.04], [0.03, 0.04]], 256), np.pi * 0.03**2 * 0.08),
        (revolved([[0.03, 0.0], [0.0, 0.06]], 256), np.pi * 0.03**2 * 0.06 / 3),
        (capsule(0.02, 0.09), np.pi * 0.02**2 * 0.05 + 4 / 3 * np.pi * 0.02**3),
        (superquadric((0.02, 0.03, 0.04), 1.0, 1.0), 4 / 3 * np.pi * 0.02 * 0.03 * 0.04),
        (superquadric((0.02, 0.03, 0.04), 2.0, 2.0), 4 / 3 * 0.02 * 0.03 * 0.04),  # an octahedron
    ],
)
def test_volumes_of_known_solids(mesh, expected):
    assert mesh.is_watertight
    assert volume(mesh) == pytest.approx(expected, rel=0.01)


def test_union_keeps_volume_and_sharp_edges():
    parts = [at(box(0.03, 0.02, 0.06), -0.01, 0, 0), at(box(0.06, 0.02, 0.02), 0.005, 0, -0.02)]
    mesh = union_mesh(parts)
    overlap = 0.03 * 0.02 * 0.02  # of the foot: x from -0.025 to 0.005, z from -0.03 to -0.01
    assert volume(mesh) == pytest.approx(0.03 * 0.02 * 0.06 + 0.06 * 0.02 * 0.02 - overlap, rel=0.01)
    np.testing.assert_allclose(mesh.bounds, [[-0.025, -0.01, -0.03], [0.035, 0.01, 0.03]], atol=1e-4)


def test_union_of_parts_inside_one_another_is_the_outer_one():
    mesh = union_mesh([box(0.04, 0.05, 0.06), box(0.01, 0.01, 0.01)])
    assert volume(mesh) == pytest.approx(0.04 * 0.05 * 0.06, rel=0.003)
    assert mesh.distances(np.zeros((1, 3)))[0] == pytest.approx(0.02, abs=1e-4)  # nothing is left within


def test_impossible_solids_are_told():
    with pytest.raises(ValueError, match="needs four that are not in a plane"):
        hull([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    with pytest.raises(ValueError, match=r"exponents 0\.0, 1.0, needs above 0"):
        superquadric((0.02, 0.02, 0.02), 0.0, 1.0)
    with pytest.raises(ValueError, match="has no parts"):
        Solid("nothing", "seen", ())
    with pytest.raises(ValueError, match="family: got 'old'"):
        Solid("thing", "old", (box(1, 1, 1),))


def test_a_users_mesh_and_what_is_none(tmp_path):
    path = write_obj(tmp_path / "ball.obj", at(sphere(0.03, 2), 1.0, 2.0, 3.0))
    solid = solid_from_file(path)
    assert solid.name == "ball"
    np.testing.assert_allclose(solid.mesh.bounds.mean(axis=0), 0, atol=1e-9)
    (tmp_path / "text.obj").write_text("v 1 2 three\nf 1 2 3\n")
    with pytest.raises(ValueError, match=r"text\.obj: .* needs an OBJ file"):
        solid_from_file(tmp_path / "text.obj")
    with pytest.raises(ValueError, match="is it in meters"):
        solid_from_file(write_obj(tmp_path / "mm.obj", box(40, 50, 60)))
    flat = Mesh(np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]]), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match=r"flat\.obj: points: have no hull"):
        solid_from_file(write_obj(tmp_path / "flat.obj", flat))
