"""Parameters saved and loaded to the same bits, and what is no file of theirs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Dense, DropoutParams, Sequential, init_dense, init_neurons, load_network, save_network

NETWORK = Sequential((Dense(), jl.LIF(dt=1.0)))
PARAMS = init_dense(jax.random.key(0), 3, 2), init_neurons(2)


def bits(x):
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) else x)


def test_what_is_loaded_are_the_saved_bits(tmp_path, dtype):
    """Of every kind of leaf, into a structure with other values; a file that was there is replaced."""
    params = {
        "net": jax.tree.map(lambda x: jnp.asarray(x, dtype), PARAMS),
        "readout": jl.LeakyParams(tau_m=jnp.asarray(np.pi, dtype), r_m=1.5),
        "half": jnp.array([0.1, -0.3], jnp.bfloat16),
        "drop": DropoutParams(key=jax.random.key(3, impl="rbg")),
        "old": jax.random.PRNGKey(4),
        "count": jnp.arange(3, dtype=jnp.int32),
        "mask": np.array([True, False]),
        "none": None,
    }
    like = {**params, "net": jax.tree.map(jnp.zeros_like, params["net"]), "readout": jl.LeakyParams()}
    save_network(tmp_path / "net.npz", {"w": jnp.zeros(2)})
    save_network(tmp_path / "net.npz", params)
    loaded = load_network(tmp_path / "net.npz", like)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert type(a) is type(b) or isinstance(b, np.ndarray)
        assert jnp.result_type(a) == jnp.result_type(b) and bits(a).tobytes() == bits(b).tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]
    with np.load(tmp_path / "net.npz", allow_pickle=False) as file:  # it is read by NumPy alone
        np.testing.assert_array_equal(file["000000"], params["count"])


@pytest.mark.parametrize(
    ("like", "network", "message"),
    [
        (
            (PARAMS[0], jl.LeakyParams()),
            None,
            r"^net.npz: it is of other parameters: 1.v_th is in the file and not in",
        ),
        ((*PARAMS, jnp.zeros(1)), None, r"^net.npz: it is of other parameters: 2 is in like and not in the file$"),
        (
            (init_dense(jax.random.key(0), 4, 2), PARAMS[1]),
            None,
            r"^net.npz: it is of other parameters: 0.weight is float64 \[3, 2\] in the file, float64 \[4, 2\] in like$",
        ),
        (
            jax.tree.map(jnp.float32, PARAMS),
            None,
            r"0.weight is float64 \[3, 2\] in the file, float32 \[3, 2\] in like$",
        ),
        (
            PARAMS,
            Sequential((Dense(), jl.LIF(dt=0.5))),
            r"^net.npz: it is of another network: \.\.\..*dt=1\.0.*in the file, \.\.\..*dt=0\.5.* here$",
        ),
    ],
)
def test_other_parameters_and_networks_are_refused(tmp_path, like, network, message):
    save_network(tmp_path / "net.npz", PARAMS, NETWORK)
    with pytest.raises(ValueError, match=message):
        load_network(tmp_path / "net.npz", like, network)
    assert load_network(tmp_path / "net.npz", PARAMS, NETWORK)[0].weight.shape == (3, 2)


def test_no_byte_can_change_unnoticed(tmp_path):
    """Every fifth byte of a file of some 5 kB is flipped: it is refused, or nothing that is loaded is another."""
    path, start = tmp_path / "net.npz", {"w": jnp.linspace(0.0, 1.0, 7)}
    save_network(path, start, NETWORK)
    good = path.read_bytes()
    for i in range(0, len(good), 5):
        path.write_bytes(good[:i] + bytes([good[i] ^ 0xFF]) + good[i + 1 :])
        try:
            loaded = load_network(path, start, NETWORK)
        except ValueError as error:
            assert str(error).startswith("net.npz: ") and "\n" not in str(error)
        else:
            np.testing.assert_array_equal(loaded["w"], start["w"])
    path.write_bytes(good[:-100])
    with pytest.raises(ValueError, match=r"^net.npz: not an .npz archive, or one that was cut short$"):
        load_network(path, start)


def test_what_is_no_such_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", w=np.zeros(2))
    with pytest.raises(ValueError, match=r"^other.npz: it holds no parameters that save_network saved$"):
        load_network(tmp_path / "other.npz", {"w": jnp.zeros(2)})
    np.savez(tmp_path / "objects.npz", about=np.array([{}], object))
    with pytest.raises(ValueError, match=r"^objects.npz: the array `about` cannot be read; only plain"):
        load_network(tmp_path / "objects.npz", {"w": jnp.zeros(2)})
    save_network(tmp_path / "net.npz", {"w": jnp.zeros(2)})
    with np.load(tmp_path / "net.npz") as file:
        np.savez(tmp_path / "longer.npz", **{"about": file["about"], "000000": np.zeros(3)})
    with pytest.raises(ValueError, match="^longer.npz: it is damaged: its arrays are not those that it names$"):
        load_network(tmp_path / "longer.npz", {"w": jnp.zeros(2)})
    with pytest.raises(FileNotFoundError, match=r"none.npz: no such file$"):
        load_network(tmp_path / "none.npz", {})
    with pytest.raises(ValueError, match=r"^params holds <U1: params must be arrays of numbers$"):
        save_network(tmp_path / "text.npz", {"w": "a"})


def test_double_precision_is_not_cut_off(tmp_path):
    save_network(tmp_path / "net.npz", {"w": jnp.asarray(0.1)})
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"^net.npz: w is float64: jax.config.update"):
        load_network(tmp_path / "net.npz", {"w": 0.0})
