"""Colours that a style has not, drawn back towards those it has.

A painting gets the style's colours so far as mean and covariance know them: a map that is linear, of colours that lie as they do in the
photograph. What stands out there stands out still, if need be in a colour of no work: lips became neon, a cheek magenta, where a dark
portrait has neither. So colour, given lightness, that lies farther from the style's than most of the style's own does is drawn back: a
gamut with a knee in place of an edge. Lightness stays, and so do the colours of nearly all pixels.
"""

from __future__ import annotations

from typing import Any

LIMIT = 2.0
"""Standard deviations (Mahalanobis) of a style's colours, given lightness, up to which nothing changes. 86 % of a Gaussian lie within."""
SHARE = 0.75
"""Of what lies beyond, how much is taken away. 24 pairs (content, structure, style): 0.461, 0.294, 0.517 without all this, 0.463, 0.294,
0.517 so, 0.465, 0.295, 0.517 where all of it is taken, 0.464, 0.295, 0.517 from 1.7 deviations on. Done to the finished painting in
place of the finish's quarter size it costs style for the same to be seen: 0.462, 0.294, 0.519 from 3 deviations on, 0.521 from 2.5."""
RIDGE = 1e-4
"""Added to variances: a grey style has colours that are 0.01 off."""
RED, GREEN, BLUE = 0.299, 0.587, 0.114
"""Of which lightness is the sum here (luma, Rec. 601)."""


def drawn_back(colors: Any, mean: Any, covariance: Any, share: float = SHARE) -> tuple[Any, Any, Any]:
    """Red, green and blue, three maps, with what lies outside of a style's gamut drawn back by ``share`` in [0, 1].

    ``mean`` holds the style's three means, ``covariance`` the upper triangle of its covariance row by row, six. Maps are arrays or
    PyTorch's tensors, and so may the style's numbers be.
    """
    red, green, blue = colors
    a, b, c, d, e, f = covariance
    # of lightness with red, with blue, and with itself
    with_red, with_blue = RED * a + GREEN * b + BLUE * c, RED * c + GREEN * e + BLUE * f
    light = RED * with_red + GREEN * (RED * b + GREEN * d + BLUE * e) + BLUE * with_blue
    # u = red - lightness, v = blue - lightness: their slopes over lightness, and what these leave of their covariance
    u_light, v_light = with_red - light, with_blue - light
    u_slope, v_slope = u_light / (light + RIDGE), v_light / (light + RIDGE)
    uu = a - 2 * with_red + light - u_slope * u_light + RIDGE
    vv = f - 2 * with_blue + light - v_slope * v_light + RIDGE
    uv = c - with_red - with_blue + light - u_slope * v_light
    over = LIMIT * LIMIT * (uu * vv - uv * uv)

    red_mean, green_mean, blue_mean = mean
    light_mean = RED * red_mean + GREEN * green_mean + BLUE * blue_mean
    y = RED * red + GREEN * green + BLUE * blue
    u = red - (1 + u_slope) * y - (red_mean - (1 + u_slope) * light_mean)
    v = blue - (1 + v_slope) * y - (blue_mean - (1 + v_slope) * light_mean)
    squared = (vv / over) * u * u - (2 * uv / over) * u * v + (uu / over) * v * v  # 1 is the limit
    change = share * (squared.clip(1) ** -0.5 - 1)
    u, v = u * change, v * change
    return red + u, green - (RED * u + BLUE * v) / GREEN, blue + v
