"""DreamerV3 of 2023: official weight names to ours, official layouts to ours."""

from golden_files import BOX, DISCRETE, VECTORS, Golden, Translation, batch_of, fill, image, read, usual_layout
from torch import Tensor

from reverie.agents.dreamer_v3_2023 import DreamerV3In2023Config
from reverie.spaces import Interface

INTERFACES = {"vector": Interface(VECTORS, BOX), "image": Interface(image(3), DISCRETE)}
HORIZONS = {"vector": 6, "image": 5}


def network(official: str, ours: str) -> list[tuple[str, str]]:
    """Hidden layers `h0`, `h1`, each with its LayerNorm."""
    return [
        (rf"{official}/h(\d)/kernel", rf"{ours}.linears.\1.kernel"),
        (rf"{official}/h(\d)/norm/scale", rf"{ours}.norms.\1.scale"),
        (rf"{official}/h(\d)/norm/bias", rf"{ours}.norms.\1.shift"),
    ]


def layer(official: str, linear: str, norm: str) -> list[tuple[str, str]]:
    """One hidden layer with its LayerNorm."""
    return [
        (rf"{official}/kernel", rf"{linear}.kernel"),
        (rf"{official}/norm/scale", rf"{norm}.scale"),
        (rf"{official}/norm/bias", rf"{norm}.shift"),
    ]


MODEL, BEHAVIOR = "agent/wm", "agent/task_behavior"
RSSM, DECODER = "world_model.rssm", "world_model.decoder"
NAMES = [
    *network(f"{MODEL}/enc/mlp", "world_model.encoder.vector"),
    *layer(
        rf"{MODEL}/enc/cnn/s(\d)res",
        r"world_model.encoder.images.0.convolutions.\1",
        r"world_model.encoder.images.0.norms.\1",
    ),
    (f"{MODEL}/rssm/initial", f"{RSSM}.initial_deterministic"),
    *layer(f"{MODEL}/rssm/img_in", f"{RSSM}.cell.input", f"{RSSM}.cell.norm_input"),
    (f"{MODEL}/rssm/gru/kernel", f"{RSSM}.cell.gates.kernel"),
    (f"{MODEL}/rssm/gru/norm/scale", f"{RSSM}.cell.norm_gates.weight"),
    (f"{MODEL}/rssm/gru/norm/bias", f"{RSSM}.cell.norm_gates.bias"),
    *layer(f"{MODEL}/rssm/img_out", f"{RSSM}.prior.linears.0", f"{RSSM}.prior.norms.0"),
    (rf"{MODEL}/rssm/img_stats/(\w+)", rf"{RSSM}.prior_logits.\1"),
    *layer(f"{MODEL}/rssm/obs_out", f"{RSSM}.posterior.linears.0", f"{RSSM}.posterior.norms.0"),
    (rf"{MODEL}/rssm/obs_stats/(\w+)", rf"{RSSM}.posterior_logits.\1"),
    *network(f"{MODEL}/dec/mlp", f"{DECODER}.vector"),
    (rf"{MODEL}/dec/mlp/dist_position/out/(\w+)", rf"{DECODER}.heads.0.\1"),
    (rf"{MODEL}/dec/mlp/dist_velocity/out/(\w+)", rf"{DECODER}.heads.1.\1"),
    (rf"{MODEL}/dec/cnn/in/(\w+)", rf"{DECODER}.images.0.to_grid.\1"),
    (rf"{MODEL}/dec/cnn/s3res/(\w+)", rf"{DECODER}.images.0.output.\1"),
    *layer(rf"{MODEL}/dec/cnn/s(\d)res", rf"{DECODER}.images.0.convolutions.\1", rf"{DECODER}.images.0.norms.\1"),
    *network(f"{MODEL}/rew", "world_model.reward.network"),
    (rf"{MODEL}/rew/dist_out/out/(\w+)", r"world_model.reward.output.\1"),
    *network(f"{MODEL}/cont", "world_model.continuation.network"),
    (rf"{MODEL}/cont/dist_out/out/(\w+)", r"world_model.continuation.output.\1"),
    *network(f"{BEHAVIOR}/ac/actor", "behavior.actor.network"),
    (rf"{BEHAVIOR}/ac/actor/dist_out/std/(\w+)", r"behavior.actor.outputs.action:deviation.\1"),
    *network(f"{BEHAVIOR}/critic/net", "behavior.critic.network"),
    (rf"{BEHAVIOR}/critic/net/dist_out/out/(\w+)", r"behavior.critic.output.\1"),
    *network(f"{BEHAVIOR}/critic/slow", "behavior.slow_critic.network"),
    (rf"{BEHAVIOR}/critic/slow/dist_out/out/(\w+)", r"behavior.slow_critic.output.\1"),
]
# The first output of the policy is the mean of continuous actions, or the logits of discrete ones.
POLICY_OUTPUT = {"vector": "mean", "image": "logits"}


def layout(official: str, value: Tensor) -> Tensor:
    """As usual, and transposed convolutions turned round in both directions."""
    if "/dec/cnn/s" in official and value.ndim == 4:
        value = value.flip(0, 1)
    return usual_layout(official, value)


def golden_agent(kind: str) -> Golden:
    """The agent of `dreamerv3_2023_<kind>.npz`."""
    policy = (rf"{BEHAVIOR}/ac/actor/dist_out/out/(\w+)", rf"behavior.actor.outputs.action:{POLICY_OUTPUT[kind]}.\1")
    data, translation = read(f"dreamerv3_2023_{kind}"), Translation([*NAMES, policy], layout)
    config = DreamerV3In2023Config(
        deterministic=24,
        units=16,
        depth=4,
        layers=2,
        vector_layers=2,
        variables=4,
        classes=5,
        horizon=HORIZONS[kind],
    )
    agent = config.build(INTERFACES[kind])
    fill(agent, translation.weights(data, "param"), own={"behavior.normalizer.low", "behavior.normalizer.high"})
    agent.optimizer = config.build_optimizer(agent)
    return Golden(agent, batch_of(data, agent.interface), data, translation)
