"""A model goes to the hub and comes back the same. The hub is a stand-in on this machine: nothing here asks the network."""

import base64
import copy
import hashlib
import json
import re
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml
from huggingface_hub import close_session, constants
from test_nn import perturb

import diffae
from diffae import cli
from diffae.autoencoder import DiffusionAutoencoder
from diffae.cli import inputs
from diffae.config import PriorConfig
from diffae.diffusion.ddim import DDIM
from diffae.interop.parts import prior_folder, save_part
from diffae.semantics.attributes import Attributes, Score
from diffae.semantics.prior import GaussianPrior, LatentPrior
from diffae.semantics.standardizer import Standardizer

TOKEN = "hf_token_of_the_stand_in"
HANG_UP = 0


class Hub(ThreadingHTTPServer):
    """What the hub's client needs of a hub in order to make a repository, commit to it, list it and read it.

    Attributes:
        repos: name -> path -> content.
        private: name -> whether it was made private.
        asked: method and path of every request.
        answer: method and path -> status, for requests that are to fail.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos, self.private, self.asked, self.answer = {}, {}, [], lambda method, path: 200
        self.before = {}

    def sha(self, repo, revision="main"):
        """Identifies the state of a repository, as a commit does."""
        digest = hashlib.sha1()
        for path, content in sorted((self.repos[repo] if revision == "main" else self.at(repo, revision)).items()):
            digest.update(path.encode() + b"\0" + content)
        return digest.hexdigest()

    def at(self, repo, revision):
        """The files of a repository after a commit, or as they are; None where there is no such revision."""
        now = revision == "main" or revision == self.sha(repo)
        return self.repos[repo] if now else self.before.get((repo, revision))

    def downloads(self):
        return [path.rsplit("/", 1)[1] for method, path in self.asked if method == "GET" and "/resolve/" in path]


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send(self, status, content, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def answer(self):
        hub, path = self.server, self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.asked.append((self.command, path))
        status = hub.answer(self.command, path)
        if status == HANG_UP:
            self.close_connection = True
            return None
        if status != 200:
            return self.send(status, {"error": "the stand-in was told to"})
        if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|revision|tree)/(\w+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path)
        repo = (api or file)[1] if api or file else None
        if repo not in hub.repos:
            return self.send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        revision = api[3] if api else file[2]
        if hub.at(repo, revision) is None:
            return self.send(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        if file:
            return self.resolve(repo, revision, file[3])
        return getattr(self, api[2])(repo, revision, body)

    do_GET = do_HEAD = do_POST = answer

    def create(self, wanted):
        repo = f"{wanted['organization']}/{wanted['name']}"
        there = repo in self.server.repos
        if not there:
            private = wanted.get("visibility") == "private" or wanted.get("private") is True  # Earlier clients say the latter.
            self.server.repos[repo], self.server.private[repo] = {}, private
        self.send(409 if there else 200, {"url": f"{self.server.url}/{repo}"})

    def validate(self, card):
        head = yaml.safe_load(card.split("---\n")[1])
        errors = [] if isinstance(head, dict) and head.get("license", "mit").islower() else [{"message": '"license" is wrong'}]
        self.send(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, repo, revision, body):
        files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
        self.send(200, {"files": files})

    def commit(self, repo, revision, body):
        lines = [json.loads(line) for line in body.splitlines()]
        added = [line["value"] for line in lines if line["key"] == "file"]
        self.server.repos[repo] |= {file["path"]: base64.b64decode(file["content"]) for file in added}
        sha = self.server.sha(repo)
        self.server.before[repo, sha] = dict(self.server.repos[repo])
        self.send(200, {"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha})

    def revision(self, repo, revision, body):
        files = [{"rfilename": path} for path in self.server.at(repo, revision)]
        about = {"id": repo, "sha": self.server.sha(repo, revision), "siblings": files}
        self.send(200, about | {"private": repo in self.server.private})

    def tree(self, repo, revision, body):
        files = self.server.at(repo, revision).items()
        oids = {path: hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() for path, content in files}
        self.send(200, [{"type": "file", "path": path, "size": len(c), "oid": oids[path]} for path, c in files])

    def resolve(self, repo, revision, path):
        content = self.server.at(repo, revision)[path]
        headers = {"X_Repo_Commit": self.server.sha(repo, revision), "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        self.send(200, content, **headers)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub without models, which the client takes for the only one, and which knows who asks."""
    server = Hub()
    settings = {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_OFFLINE": False,
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_OIDC_RESOURCE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    close_session()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ae(tiny):
    torch.manual_seed(0)
    model = perturb(DiffusionAutoencoder(tiny)).eval()
    model.standardizer = Standardizer(torch.full((6,), 2.0), torch.full((6,), 0.5))
    model.prior = GaussianPrior(6)
    model.prior.mean.fill_(0.7)
    model.attributes = Attributes(
        {"Round": Score("binary", 10, 0.5, 5, auroc=0.75), "Size": Score("continuous", 9, 4.0, r2=0.5)}, 6
    )
    for buffer in (model.attributes.weight, model.attributes.pattern):
        buffer.normal_(generator=torch.Generator().manual_seed(3))
    model.about = {"data": "three squares", "licence": "mit", "images_seen": 48, "metrics": {"FID": 3.25}}
    return model


@pytest.fixture(scope="module")
def x():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def states_equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# There and back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["gaussian", "latent DDIM"])
def test_what_is_pushed_and_loaded_again_is_the_same_model(hub, ae, x, prior):
    if prior != "gaussian":
        ae.prior = LatentPrior(PriorConfig(z_dim=6, width=8, layers=3, gaussian_start=True))
    assert ae.push_to_hub("user/squares") == f"{hub.url}/user/squares"
    again = diffae.load("user/squares")
    assert again.config == ae.config
    assert not again.training
    z_sem = ae.encode(x)
    assert torch.equal(again.encode(x), z_sem)
    assert torch.equal(again.invert(x, z_sem, steps=2), ae.invert(x, z_sem, steps=2))
    assert torch.equal(again.sample(2, steps=2, prior_steps=2), ae.sample(2, steps=2, prior_steps=2))


def test_standardiser_attributes_and_what_is_known_about_it_travel(hub, ae, x):
    ae.push_to_hub("user/squares")
    again = diffae.load("user/squares")
    assert states_equal(again, ae)
    assert torch.equal(again.standardizer.mean, ae.standardizer.mean)
    assert again.attributes.scores == ae.attributes.scores
    assert torch.equal(again.manipulate(x, "Round", steps=2), ae.manipulate(x, "Round", steps=2))
    assert again.about == ae.about


def test_a_plain_ddim_travels_as_what_it_is(hub, tiny, x):
    ddim = perturb(DDIM(replace(tiny, z_dim=None))).eval()
    ddim.push_to_hub("user/plain")
    assert torch.equal(diffae.load_diffusion("user/plain").reconstruct(x, steps=2), ddim.reconstruct(x, steps=2))
    assert "diffae.load_diffusion(" in hub.repos["user/plain"]["README.md"].decode()
    with pytest.raises(ValueError, match="user/plain holds a plain DDIM, which has no z_sem"):
        diffae.load("user/plain")


def test_three_files_arrive_and_the_card_states_data_licence_and_metrics(hub, ae):
    ae.push_to_hub("user/squares")
    files = hub.repos["user/squares"]
    assert files.keys() == {"config.json", "model.safetensors", "README.md"}
    _, head, text = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "mit"
    assert yaml.safe_load(head)["library_name"] == "diffae"
    for line in ("# user/squares", "- Data: three squares", "- Licence: mit", "- FID: 3.25", "| Round | 5 | 0.750 |  |  |"):
        assert line in text.splitlines()
    assert 'diffae.load("user/squares")' in text


def test_licences_in_any_words_pass_the_hubs_check_of_the_card(hub, ae):
    for licence in ("CC-BY-4.0", "CelebA: for research", None):
        ae.about["licence"] = licence
        ae.push_to_hub("user/squares")
        assert f"- Licence: {licence or 'not stated'}" in hub.repos["user/squares"]["README.md"].decode()


def test_pushing_again_replaces_the_model_and_who_loads_it_gets_the_new_one(hub, ae, x):
    ae.push_to_hub("user/squares")
    before = diffae.load("user/squares").encode(x)
    newer = copy.deepcopy(ae)
    newer.encoder.linear.bias.data.add_(1)
    newer.prior = newer.attributes = None
    newer.push_to_hub("user/squares")
    again = diffae.load("user/squares")
    assert torch.equal(again.encode(x), newer.encode(x))
    assert not torch.equal(again.encode(x), before)
    assert again.prior is None
    assert again.attributes is None


def test_a_revision_is_what_was_there_then(hub, ae, x):
    before = ae.encode(x)
    ae.push_to_hub("user/faces")
    then = hub.sha("user/faces")
    perturb(ae)
    ae.push_to_hub("user/faces")
    assert torch.equal(diffae.load("user/faces", revision=then).encode(x), before)
    assert torch.equal(diffae.load("user/faces").encode(x), ae.encode(x))
    with pytest.raises(FileNotFoundError, match="no model of that name and revision v2 that you may read"):
        diffae.load("user/faces", revision="v2")


def test_a_folder_has_no_revisions(ae, tmp_path):
    ae.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="has no revisions: leave revision='v2' away"):
        diffae.load(tmp_path / "model", revision="v2")


@pytest.mark.parametrize("private", [True, False])
def test_a_new_repository_is_as_private_as_was_asked_for(hub, ae, private):
    ae.push_to_hub("user/squares", private=private)
    assert hub.private == {"user/squares": private}


def test_only_what_is_read_is_downloaded_and_only_once(hub, ae):
    ae.push_to_hub("user/squares")
    diffae.load("user/squares")
    diffae.load("user/squares")
    assert sorted(hub.downloads()) == ["config.json", "model.safetensors"]


def test_what_was_loaded_once_is_there_when_the_hub_is_not(hub, ae, x):
    ae.push_to_hub("user/squares")
    diffae.load("user/squares")
    hub.answer = lambda method, path: 503
    assert torch.equal(diffae.load("user/squares").encode(x), ae.encode(x))


def test_codes_of_a_model_on_the_hub_are_kept_in_the_cache(ae, make_images, cache, monkeypatch):
    data = inputs.images(ae, "user/squares", str(make_images(6, size=(8, 8))))
    z_sem = inputs.codes(ae, "user/squares", data)
    torch.testing.assert_close(z_sem, ae.encode(data.images(range(6))), rtol=1e-5, atol=1e-6)
    assert len(list((cache / "codes").rglob("*.parquet"))) == 1
    monkeypatch.setattr("diffae.data.codes.write_codes", None)
    assert torch.equal(inputs.codes(ae, "user/squares", data), z_sem)
    next(ae.encoder.parameters()).data += 0.1
    with pytest.raises(TypeError):
        inputs.codes(ae, "user/squares", data)


def test_a_folder_of_the_same_name_comes_before_the_hub(hub, ae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ae.save_pretrained("user/squares")
    assert states_equal(diffae.load("user/squares"), ae)
    assert hub.asked == []


# What cannot be ------------------------------------------------------------------------------------------------------


def refused(name, kind=FileNotFoundError):
    """The message, which is one line without what only the hub's client understands."""
    with pytest.raises(kind) as raised:
        diffae.load(name)
    message = str(raised.value)
    assert "\n" not in message
    assert re.fullmatch(r".*[.`]", message), "a sentence ends"
    assert "repo_type" not in message
    return message


def test_a_model_that_is_not_there_is_one_clear_sentence(hub):
    message = refused("user/nothing")
    assert message.startswith("There is no folder user/nothing, and the hub has no model of that name that you may read (404")
    assert message.endswith("For a private one, log in with `hf auth login`.")


@pytest.mark.parametrize(("status", "says"), [(401, "has no model of that name that"), (403, "does not"), (500, "does not")])
def test_a_hub_that_refuses_or_fails_says_so_in_the_message(hub, ae, status, says):
    ae.push_to_hub("user/squares")
    hub.answer = lambda method, path: status
    message = refused("user/squares")
    assert message.startswith(f"There is no folder user/squares, and the hub {says}")
    assert str(status) in message


@pytest.mark.parametrize("how", ["nobody listens", "hangs up"])
def test_a_hub_that_cannot_be_reached_is_not_said_to_lack_the_model(hub, ae, monkeypatch, how):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if how == "nobody listens":
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        hub.answer = lambda method, path: HANG_UP
        assert re.search(r"the hub does not answer for a model \(.+\)", refused("user/squares"))
        with pytest.raises(ConnectionError, match=r"^The hub at http://127.0.0.1:\d+ does not answer \(.+\): try again later.$"):
            ae.push_to_hub("user/squares")


def test_a_repository_of_something_else_is_no_model(hub):
    hub.repos["user/notes"] = {"README.md": b"# Notes"}
    assert refused("user/notes") == "user/notes on the hub is no model of diffae: it holds no config.json and no model.safetensors."
    hub.repos["user/bert"] = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""}
    assert "was not written by `save_pretrained`: its format is not 'diffae-1'." in refused("user/bert", ValueError)


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "../model", "user/.hidden", "a--b/c", "user/model.git", "user/mo del", ""])
def test_a_name_that_is_neither_folder_nor_on_the_hub_says_what_to_give(hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name == "":
        name = str(tmp_path / "missing")
    assert refused(name) == f"{name} is no folder. Give a run directory, a folder that `save_pretrained` wrote, or user/model."
    assert hub.asked == [], "the hub need not be asked"


@pytest.mark.parametrize("name", ["squares", "a/b/squares", "user/"])
def test_a_model_is_pushed_to_a_user(hub, ae, name):
    with pytest.raises(ValueError, match=f"Expected the hub's name for the model as user/model, got '{name}'"):
        ae.push_to_hub(name)
    assert hub.asked == []


def test_nobody_who_may_not_write_pushes(hub, ae):
    with pytest.raises(PermissionError, match="The hub does not let you write to user/squares: log in with `hf auth login`"):
        ae.push_to_hub("user/squares", token="hf_of_another")
    assert hub.repos == {}


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(ae, tmp_path):
    """A model with two priors and attributes beside it, as training and fitting leave them."""
    beside = copy.deepcopy(ae)
    beside.prior = beside.attributes = None
    beside.about = {"data": "squares, 48 images", "images_seen": 48}
    beside.save_pretrained(tmp_path / "run" / "model")
    for name, mean in (("gaussian", 1.0), ("mine", 2.0)):
        ae.prior.mean.fill_(mean)
        save_part(ae, prior_folder(tmp_path / "run", name) / "model", ["prior", "standardizer"])
    save_part(ae, tmp_path / "run" / "attributes", ["attributes"])
    return str(tmp_path / "run")


def test_the_command_pushes_a_run_with_all_that_is_beside_it_and_prints_the_address(hub, run, ae, capsys):
    cli.main(["push", run, "user/model", "--licence", "mit"])
    said = capsys.readouterr()
    assert said.out == f"{hub.url}/user/model\n"
    assert "No licence" not in said.err
    again = diffae.load("user/model")
    assert float(again.prior.mean[0]) == 1
    assert torch.equal(again.attributes.weight, ae.attributes.weight)
    assert again.about == {"data": "squares, 48 images", "images_seen": 48, "licence": "mit"}


def test_options_of_the_command_say_what_travels_and_what_is_told(hub, run, capsys):
    cli.main(["push", run, "user/model", "--data", "drawn squares", "--prior", "mine", "--licence", "mit", "--private"])
    assert hub.private == {"user/model": True}
    assert float(diffae.load("user/model").prior.mean[0]) == 2
    card = hub.repos["user/model"]["README.md"].decode()
    assert "- Data: drawn squares" in card
    assert "48 images" not in card
    assert "sample, by a Gaussian prior" in card


def test_without_a_licence_the_command_pushes_and_warns(hub, run, capsys):
    cli.main(["push", run, "user/model"])
    said = capsys.readouterr()
    assert said.out == f"{hub.url}/user/model\n"
    assert "No licence is stated (--licence): by default nobody may use the model." in said.err
    assert "- Licence: not stated" in hub.repos["user/model"]["README.md"].decode()
    assert "license" not in hub.repos["user/model"]["README.md"].decode()


@pytest.mark.parametrize(
    ("to", "token", "message"),
    [
        ("model", TOKEN, "error: Expected the hub's name for the model"),
        ("user/model", "hf_none", "error: The hub does not let you write"),
    ],
)
def test_the_command_fails_in_one_line(hub, run, capsys, monkeypatch, to, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["push", run, to, "--licence", "mit"])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert said.err.startswith(message)
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert hub.repos == {}
