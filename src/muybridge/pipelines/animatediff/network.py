"""How the U-Net of AnimateDiff is called: what it takes besides latents, and the networks beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from muybridge.backbones.unet import UNet3DConditionModel
from muybridge.conditioning.residuals import ActiveControl, Residuals
from muybridge.conditioning.sdxl_sizes import SizeChoices
from muybridge.pipelines.base import Network, Told
from muybridge.types import SettingsView

_FRAMES = 2  # axis of what controls are shown


class ControlledUNet:
    """The U-Net with the networks beside it: what guidance calls in every step.

    Latents stay float32 between the steps, whatever the U-Net computes in. Conditions named `control_0`, `control_1`
    and so on belong to the networks, `motion_strengths [b, f]` are strengths by frame, and others go to the U-Net.
    Where each frame has a text of its own, `text_embeds [b, f, d]` too; the U-Net is told their mean.
    """

    def __init__(
        self,
        unet: UNet3DConditionModel,
        settings: SettingsView | None = None,
        controls: Sequence[ActiveControl] = (),
    ) -> None:
        """`settings` are further arguments of the U-Net."""
        self.unet = unet
        self._settings = dict(settings or {})
        self._controls = controls
        self._level: float | None = None

    def begin_step(self, level: float) -> None:
        """Say at which noise level (timestep) the next step is; networks that do not count there are not run."""
        self._level = level

    def __call__(self, latents: Tensor, timestep: Tensor, /, **conditions: Tensor) -> Tensor:
        """The prediction for `latents [b, c, f, h, w]`."""
        latents = latents.to(self.unet.dtype)
        settings = dict(self._settings)
        if "motion_strengths" in conditions:
            settings["motion_strength"] = conditions.pop("motion_strengths")[0]
        added = {name: conditions.pop(name) for name in ("text_embeds", "time_ids") if name in conditions}
        if "text_embeds" in added and added["text_embeds"].ndim == 3:
            added["text_embeds"] = added["text_embeds"].mean(dim=1)
        total: Residuals | None = None
        for name, control in zip(control_names(self._controls), self._controls, strict=True):
            shown = conditions.pop(name)
            if self._level is None or control.influence.counts_at(self._level):
                residuals = control.residuals(latents, timestep, conditions["encoder_hidden_states"], shown)
                total = residuals.times(control.influence.strength).plus(total)
        if total is not None:
            settings |= {
                "down_block_additional_residuals": total.down,
                "mid_block_additional_residual": total.mid,
            }
        return self.unet(latents, timestep, added_cond_kwargs=added, **conditions, **settings).sample.float()


def control_names(controls: Sequence[ActiveControl]) -> list[str]:
    """Names of the conditions of `controls`."""
    return [f"control_{index}" for index in range(len(controls))]


def unet_network(unet: UNet3DConditionModel, told: Told) -> Network:
    """The U-Net, told the text, what the conditions say, and where the model is told it the sizes."""
    prepared, task, text = told.prepared, told.task, told.text
    network = ControlledUNet(unet, {**told.settings, **prepared.settings}, prepared.controls)
    sizes: dict[str, Tensor] = {}
    if text.positive_pooled is not None and "time_ids" not in prepared.positive:
        ids = SizeChoices().sizes(task.shape.height, task.shape.width)[0].ids(task.count)
        sizes = {"time_ids": ids.to(text.positive.device)}
    shown = {
        name: each.condition.to(text.positive.device, unet.dtype).expand(task.count, -1, -1, -1, -1)
        for name, each in zip(control_names(prepared.controls), prepared.controls, strict=True)
    }
    shared = {**sizes, **shown, **prepared.positive}
    positive = {**_states(text.positive, text.positive_pooled), **shared}
    negative = None
    if text.negative is not None:
        negative = {**_states(text.negative, text.negative_pooled), **shared, **prepared.negative}
    return Network(network, positive, negative, {**_axes(positive), **prepared.frame_axes}, network.begin_step)


def _states(states: Tensor, pooled: Tensor | None) -> dict[str, Tensor]:
    return {"encoder_hidden_states": states} | ({} if pooled is None else {"text_embeds": pooled})


def _axes(conditions: Mapping[str, Tensor]) -> dict[str, int]:
    """Conditions that have a part for every frame."""
    axes = {name: _FRAMES for name in conditions if name.startswith("control_")}
    if conditions["encoder_hidden_states"].ndim == 4:
        axes["encoder_hidden_states"] = 1
        if "text_embeds" in conditions and conditions["text_embeds"].ndim == 3:
            axes["text_embeds"] = 1
    return axes
