"""Schedules, step rules and the sampling loop, held against published figures and against Gaussian
sources, where marginals, probability flow and information are known in closed form."""

import math

import pytest
import torch

from gvcc import flow
from gvcc.errors import ConfigError

RF, VP = flow.PATHS["rf"], flow.PATHS["vp"]
D = 2**19  # the power of so many values is known to 0.2 %


def normal(seed, count=D):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def spectrum(count=D):
    """Variances from 1/10 to 10 on a logarithmic scale."""
    return torch.logspace(-1, 1, count)


def conditional_mean(path, s):
    """The exact denoiser of independent Gaussian values of variance s."""

    def denoise(x, t):
        alpha, sigma = path(t)
        return x * (alpha * s / (alpha**2 * s + sigma**2))

    return denoise


def ode(*_):
    return None


def fresh(seed, coded=math.inf):
    """Unit normals for the first `coded` steps, then ODE."""
    generator = torch.Generator().manual_seed(seed)

    def noise(i, t, s, h):
        return torch.randn(h.shape, generator=generator) if i < coded else None

    return noise


def along(path, times, denoise, noise, x, **settings):
    """All the states of one run of `sample`: a list that starts with x."""
    states, settings = [x], {"rule": "posterior", **settings}
    settings["observe"] = lambda i, y: states.append(y)
    last = flow.sample(denoise, x, times, noise, path=path, **settings)
    assert last is states[-1]
    return states


# -- schedule ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "printed"),
    [
        (3, "1 .98276 .96429 .94444 .92308 .9 .875 .84783 .81818 .78571 .75 .71053 .66667 .61765"
            " .5625 .5 .42857 .34615 .25 .13636 0"),
        (5, "1 .98958 .97826 .96591 .95238 .9375 .92105 .90278 .88235 .85938 .83333 .80357 .76923"
            " .72917 .68182 .625 .55556 .46875 .35714 .20833 0"),
    ],
)  # fmt: skip
def test_schedule_is_the_published_one(shift, printed):
    assert flow.schedule(20, shift) == pytest.approx(
        [float(v) for v in printed.split()], abs=5.1e-6
    )


def test_schedule_without_shift_is_even_and_any_shift_falls_from_one_to_zero():
    assert flow.schedule(4, 1) == [1, 0.75, 0.5, 0.25, 0]
    for shift in (1 / 256, 77 / 256, 7.5, 255):  # what a header can hold
        times = flow.schedule(20, shift)
        assert (times[0], times[-1], len(times)) == (1, 0, 21)
        assert times == sorted(set(times), reverse=True)


# -- single steps -----------------------------------------------------------------------------


def test_posterior_is_the_regression_of_the_earlier_state_on_the_later_one():
    """Two million pairs of the Markov chain through t = .5 to t = .8, for x0 = 1.3."""
    n = 2_000_000
    e, f = normal(1, 2 * n).double().reshape(2, n)
    near = 0.5 * 1.3 + 0.5 * e
    far = 0.4 * near + math.sqrt(0.8**2 - (0.4 * 0.5) ** 2) * f
    slope = float(((far - far.mean()) * near).mean() / far.var(correction=0))
    intercept = float(near.mean() - slope * far.mean())
    spread = float((near - slope * far - intercept).std())
    assert (slope, intercept, spread) == pytest.approx((0.1562, 0.6094, 0.4841), abs=3e-3)
    step = flow.noisy_step("posterior", RF, 0.8, 0.5, 0)
    assert (step.a, step.b * 1.3, step.c) == pytest.approx((0.1562, 0.6094, 0.4841), abs=1e-4)
    assert (step.a, step.b * 1.3, step.c) == pytest.approx((slope, intercept, spread), abs=3e-3)


@pytest.mark.parametrize("path", [RF, VP], ids=["rf", "vp"])
def test_posterior_equals_the_ddpm_formulas_after_scaling(path):
    """q(x_s | x_t, x0) of Ho et al. 2020, written for states scaled to unit alpha^2 + sigma^2."""
    pairs = torch.rand(1000, 2, generator=torch.Generator().manual_seed(2)).double()
    pairs = [sorted(p) for p in (pairs * 0.98 + 0.01).tolist()]
    for s, t in [*pairs, (0.9, 1.0)]:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = path(t), path(s)
        scale_t, scale_s = math.hypot(alpha_t, sigma_t), math.hypot(alpha_s, sigma_s)
        bar_t, bar_s = (alpha_t / scale_t) ** 2, (alpha_s / scale_s) ** 2
        beta = 1 - bar_t / bar_s
        a = math.sqrt(1 - beta) * (1 - bar_s) / (1 - bar_t)
        b = math.sqrt(bar_s) * beta / (1 - bar_t)
        c = math.sqrt((1 - bar_s) / (1 - bar_t) * beta)
        step = flow.noisy_step("posterior", path, t, s, 0)
        assert step.a * scale_t / scale_s == pytest.approx(a, abs=1e-10)
        assert step.b / scale_s == pytest.approx(b, abs=1e-10)
        assert step.c / scale_s == pytest.approx(c, abs=1e-10)


@pytest.mark.parametrize("g_scale", [0.5, 3.0, 8.0])
def test_em_and_ou_are_the_published_steps(g_scale):
    x, h, z = normal(3, 300).double().reshape(3, 100)
    times = flow.schedule(20, 3)
    for t, s in zip(times[:-2], times[1:-1], strict=True):
        u = (x - h) / t  # the network's output, as x0hat = x - t u
        eps = x + (1 - t) * u
        g = g_scale * t**2
        em = x - (u + 0.5 * g**2 * eps / t) * (t - s) + g * math.sqrt(t - s) * z
        rho = math.exp(-(g_scale**2) * (t**3 - s**3) / 6)
        ou = (1 - s) * h + s * (rho * eps + math.sqrt(1 - rho**2) * z)
        for rule, expected in (("em", em), ("ou", ou)):
            step = flow.noisy_step(rule, RF, t, s, g_scale)
            off = step.a * x + step.b * h + step.c * z - expected
            assert float(off.abs().max()) < 1e-12


@pytest.mark.parametrize("t", [0.95, 0.6, 0.2])
def test_small_ou_steps_become_em_steps(t):
    apart = []
    for dt in (1e-3, 1e-4):
        ou, em = (flow.noisy_step(rule, RF, t, t - dt, 3.0) for rule in ("ou", "em"))
        apart.append([abs(ou.a - em.a), abs(ou.b - em.b), abs(ou.c**2 - em.c**2)])
        assert max(apart[-1]) < 0.1 * abs(em.a - 1)
    assert all(small < 0.02 * large for large, small in zip(*apart, strict=True)), apart


def test_ou_and_em_are_for_rectified_flow_only_and_other_rules_are_unknown():
    for rule in ("em", "ou"):
        with pytest.raises(ConfigError, match=f"{rule}.*rectified flow"):
            flow.noisy_step(rule, VP, 0.8, 0.5, 3.0)
    with pytest.raises(ConfigError, match="'heun'.*em, ou, posterior"):
        flow.noisy_step("heun", RF, 0.8, 0.5, 3.0)


# -- information ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [RF, VP], ids=["rf", "vp"])
def test_information_is_the_divergence_between_steps_with_and_without_x0(path):
    off = normal(5, 50).double()
    assert flow.snr(path, 0.5) == pytest.approx(1)
    for t, s in ((0.95, 0.9), (0.8, 0.5), (0.3, 0.05)):
        step = flow.noisy_step("posterior", path, t, s, 0)
        q, p = (torch.distributions.Normal(step.b * m, step.c) for m in (off, 0 * off))
        nats = float(torch.distributions.kl_divergence(q, p).sum())
        bits = flow.information(path, t, s, float((off**2).sum()))
        assert bits == pytest.approx(nats / math.log(2), rel=1e-9)
    assert flow.information(path, 1.0, 0.9, 2.0) == pytest.approx(flow.snr(path, 0.9) / math.log(2))
    assert flow.information(path, 0.2, 0.0, 1.0) == math.inf


@pytest.mark.parametrize(
    ("end", "printed"),
    [(0.6, (1.78, 1.27, 1.12, 1.06, 1.03, 1.01)), (0.4, (2.19, 1.39, 1.16, 1.07, 1.04, 1.02))],
)
def test_information_sums_to_that_between_x0_and_the_last_state_as_published(end, printed):
    """Over I(x0; x_t) = sum log2(1 + SNR S) / 2, for 2, 4 .. 64 even steps (published.md B.4)."""
    s = (torch.arange(1024) + 1.0).double() ** -1.5
    s /= s.mean()
    exact = float(torch.log2(1 + flow.snr(RF, end) * s).sum()) / 2
    for n, ratio in zip((2, 4, 8, 16, 32, 64), printed, strict=True):
        times = [1 - (1 - end) * i / n for i in range(n + 1)]
        errors = [float((s * t**2 / ((1 - t) ** 2 * s + t**2)).sum()) for t in times]
        asked = sum(map(flow.information, [RF] * n, times, times[1:], errors))
        assert asked / exact == pytest.approx(ratio, abs=0.0051)


# -- marginals with noise ---------------------------------------------------------------------


def departures(states, times, s):
    """Relative excess of each state's power over alpha^2 S + sigma^2: of all the power, and with
    small variances weighing as much as large ones."""
    out = []
    for x, t in zip(states, times, strict=False):
        alpha, sigma = RF(t)
        want = alpha**2 * s + sigma**2
        out.append(float((x**2).sum() / want.sum()) - 1)
        out.append(float((x**2 / want).mean()) - 1)
    return out


@pytest.mark.parametrize("x0_is", ["known", "drawn"])
@pytest.mark.parametrize("shift", [3, 5])
@pytest.mark.parametrize(("rule", "g_scale"), [("posterior", 0), ("ou", 3), ("ou", 5), ("ou", 8)])
def test_posterior_and_ou_keep_the_marginals(rule, g_scale, shift, x0_is):
    """At each of 17 steps of 20: with a perfect model, which knows x0 (published.md 4.5), and
    without x0, with the Gaussian oracle answering by a draw from p(x0 | x_t)."""
    s, times = spectrum(), flow.schedule(20, shift)[:18]
    x0, mean, again = s.sqrt() * normal(6), conditional_mean(RF, s), fresh(7)

    def denoise(x, t):
        spread = (s * t**2 / ((1 - t) ** 2 * s + t**2)).sqrt()
        return x0 if x0_is == "known" else mean(x, t) + spread * again(0, t, t, x)

    states = along(RF, times, denoise, fresh(8), normal(9), rule=rule, g_scale=g_scale)
    assert max(map(abs, departures(states, times, s))) < 0.01


@pytest.mark.parametrize("path", [RF, VP], ids=["rf", "vp"])
def test_noise_shifted_by_what_information_counts_lands_on_the_path_to_x0(path):
    """With the conditional mean as denoiser and z ~ N(mu, I), mu = sqrt(SNR_s - SNR_t)(x0 - h),
    each state is alpha x0 + sigma eps with eps white and free of x0."""
    s, times = spectrum(), flow.schedule(20, 3)[:18]
    x0, white = s.sqrt() * normal(12), fresh(13)

    def noise(i, t, u, h):
        return white(i, t, u, h) + math.sqrt(flow.snr(path, u) - flow.snr(path, t)) * (x0 - h)

    states = along(path, times, conditional_mean(path, s), noise, normal(14))
    for x, t in zip(states, times, strict=True):
        alpha, sigma = path(t)
        eps = (x - alpha * x0) / sigma
        assert float((eps**2).mean()) == pytest.approx(1, abs=0.01)
        assert abs(float((eps * x0 / s.sqrt()).mean())) < 0.01


@pytest.mark.parametrize(
    ("g_scale", "shift", "excess"),
    [(3, 3, 0.08), (3, 5, 0.08), (5, 3, 0.16), (5, 5, 0.20), (8, 3, 0.33), (8, 5, 0.55)],
)
def test_em_leaves_the_published_excess_of_noise(g_scale, shift, excess):
    """published.md 4.5: at the end of 17 of 20 steps, with a perfect model."""
    times, x0 = flow.schedule(20, shift)[:18], spectrum().sqrt() * normal(15)
    states = along(RF, times, lambda x, t: x0, fresh(16), normal(17), rule="em", g_scale=g_scale)
    noise = (states[-1] - (1 - times[-1]) * x0).std() / times[-1]
    assert float(noise) - 1 == pytest.approx(excess, abs=0.006)
    assert max(map(abs, departures(states, times, spectrum()))) > 0.01


def exact_variance(times, rule, s):
    """Variance of the last state for unit x_1 and fresh noise, without Monte Carlo: the loop is
    linear, so it is run on the coefficients of its independent noises, a row for each of s."""
    x = torch.zeros(len(s), len(times)).double()
    x[:, -1] = 1

    def unit(i, t, u, h):
        return torch.zeros_like(h).index_fill_(1, torch.tensor(i), 1.0)

    denoise = conditional_mean(RF, s[:, None])
    return (along(RF, times, denoise, unit, x, rule=rule)[-1] ** 2).sum(1)


@pytest.mark.parametrize("rule", flow.RULES)
def test_every_rule_is_of_first_order_with_the_conditional_mean(rule):
    """Fresh noise about h = E[x0 | x_t] lacks the spread of x0 given x_t; only short steps cure
    that, so the variance of a generated source goes to alpha^2 S + sigma^2 as 1 / steps."""
    s = torch.tensor([0.1, 1.0, 10.0]).double()
    want = 0.7**2 * s + 0.3**2
    coarse, fine = (
        (exact_variance([1 - 0.7 * i / n for i in range(n + 1)], rule, s) / want - 1).abs()
        for n in (512, 1024)
    )
    assert float(fine.max()) < 0.01
    assert torch.log2(coarse / fine) == pytest.approx(torch.ones(3), abs=0.3)


def test_the_posterior_rule_generates_too_little_variance_at_twenty_calls():
    """A known limit, not a wish, for unit variance; where x0 steers the noise nothing is lost."""
    times = flow.schedule(20, 3)[:18]
    variance = float(exact_variance(times, "posterior", torch.ones(1).double()))
    assert variance / (0.65385**2 + 0.34615**2) - 1 == pytest.approx(-0.189, abs=0.005)


# -- the deterministic end --------------------------------------------------------------------


@pytest.mark.parametrize("knob", [1.0, 1.3, 2.0])
def test_a_short_ode_step_is_the_published_slope(knob):
    """dx/dt = v + (k - 1)(x / (1 - t) - x0hat) / t."""
    x, h = normal(18, 200).double().reshape(2, 100)
    for t in (0.9, 0.5, 0.1):
        slope = (x - h) / t + (knob - 1) * (x / (1 - t) - h) / t
        dt = 1e-6
        step = flow.ode_step(RF, t, t - dt, knob)
        assert torch.allclose((x - (step.a * x + step.b * h)) / dt, slope, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("knob", [1.0, 1.3, 2.0])
def test_ode_steps_of_both_paths_are_one_after_scaling(knob):
    for t, s in ((0.9, 0.8), (0.5, 0.1), (0.2, 0.0)):
        scales, points = [], []
        for u in (t, s):  # the time of the other path with the same signal-to-noise ratio
            alpha, sigma = RF(u)
            scales.append(math.hypot(alpha, sigma))
            points.append(math.atan2(sigma, alpha) * 2 / math.pi)
        one, other = flow.ode_step(RF, t, s, knob), flow.ode_step(VP, *points, knob)
        assert other.a == pytest.approx(one.a * scales[0] / scales[1], abs=1e-12)
        assert other.b == pytest.approx(one.b / scales[1], abs=1e-12)


def test_the_ends_of_the_ode():
    """Into t = 0 it gives the denoised picture; from t = 1 it is finite."""
    for path, knob in ((RF, 1.0), (RF, 2.0), (VP, 1.0), (VP, 2.0)):
        assert flow.ode_step(path, 0.3, 0.0, knob) == (0, 1, 0)
    assert flow.ode_step(RF, 1.0, 0.5, 1.0) == (0.5, 0.5, 0)
    assert all(map(math.isfinite, flow.ode_step(RF, 1.0, 0.5, 1.5)))


@pytest.mark.parametrize("path", [RF, VP], ids=["rf", "vp"])
@pytest.mark.parametrize(("multistep", "steps"), [(False, 2500), (True, 400)])
def test_many_ode_steps_make_the_exact_probability_flow(path, multistep, steps):
    """For a Gaussian source x0 = sqrt(S) x_1: no spread is lost on the way from noise."""
    s = spectrum(64).double()
    x = normal(19, 64).double()
    times = flow.schedule(steps, 1)
    got = along(path, times, conditional_mean(path, s), ode, x, multistep=multistep)[-1]
    assert torch.allclose(got, x * s.sqrt(), rtol=3e-3, atol=0)


@pytest.mark.parametrize(("multistep", "order"), [(False, 1), (True, 2)])
@pytest.mark.parametrize(("start", "end"), [(0.95, 0.1), (1.0, 0.1)])
def test_measured_order_of_the_ode(multistep, order, start, end):
    s = torch.tensor([0.1, 0.5, 3.0, 10.0]).double()
    x = torch.ones(4).double()
    exact = ((1 - end) ** 2 * s + end**2).sqrt() / ((1 - start) ** 2 * s + start**2).sqrt()
    errors = []
    for n in (64, 128, 256, 512):
        times = [start + (end - start) * i / n for i in range(n + 1)]
        got = along(RF, times, conditional_mean(RF, s), ode, x, multistep=multistep)[-1]
        errors.append((got - exact).abs().max())
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize(
    ("knob", "mse", "power"),
    [(1.0, 0.733, 0.997), (1.25, 0.701, 0.901), (1.5, 0.681, 0.814), (2.0, 0.666, 0.665)],
)
def test_knob_trades_error_against_power_as_published(knob, mse, power):
    """published.md B.4: a source of variance 2, from the exact state at t = .5."""
    s, x0 = 2.0, math.sqrt(2) * normal(20)
    x = 0.5 * x0 + 0.5 * normal(21)
    times = [0.5 - 0.5 * i / 100 for i in range(101)]
    got = along(RF, times, conditional_mean(RF, s), ode, x, knob=knob, multistep=True)[-1]
    assert float(((got - x0) ** 2).mean()) == pytest.approx(mse, abs=0.005)
    assert float((got**2).mean() / s) == pytest.approx(power, abs=0.006)


def test_knob_two_goes_to_the_conditional_mean():
    s, x = torch.tensor([0.05, 0.5, 5.0]).double(), torch.ones(3).double()
    for start in (0.8, 0.3):
        times = [start - start * i / 1000 for i in range(1001)]
        got = along(RF, times, conditional_mean(RF, s), ode, x, knob=2.0)[-1]
        assert got == pytest.approx(conditional_mean(RF, s)(x, start), rel=5e-3)


# -- the loop ---------------------------------------------------------------------------------


def test_the_loop_asks_for_noise_once_a_step_and_shows_every_state():
    asked, times = [], flow.schedule(6, 3)

    def noise(i, t, s, h):
        asked.append((i, t, s))
        return torch.ones_like(h) if i < 3 else None

    states = along(RF, times, lambda x, t: t * x, noise, torch.ones(4).double())
    assert asked == list(zip(range(6), times[:-1], times[1:], strict=True))
    y = 1.0
    for (i, t, s), x in zip(asked, states[1:], strict=True):
        rule = flow.noisy_step("posterior", RF, t, s, 0) if i < 3 else flow.ode_step(RF, t, s, 1)
        y = rule.a * y + rule.b * t * y + rule.c
        assert x == pytest.approx(torch.full((4,), y, dtype=torch.double), rel=1e-12)


def test_second_order_starts_anew_after_a_noisy_step():
    """Between noisy steps single ODE steps have nothing to extrapolate from; two in a row do."""
    s, times, x = torch.tensor([0.3, 2.0]), flow.schedule(8, 3), torch.ones(2)

    def run(multistep, pattern):
        def noise(i, t, u, h):
            return torch.full_like(h, 0.7) if pattern[i] == "n" else None

        return along(RF, times, conditional_mean(RF, s), noise, x, multistep=multistep)[-2]

    assert torch.equal(run(True, "nonononn"), run(False, "nonononn"))
    assert not torch.equal(run(True, "nnnnooon"), run(False, "nnnnooon"))
