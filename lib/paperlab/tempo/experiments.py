"""One function per exhibit: each takes a `Config` and returns a tidy table with its evidence class.

The numbers of the paper's own tables and figures could not be read, Figure 4's caption apart; the other exhibits
carry names of ours instead of invented figure numbers.
"""

from __future__ import annotations

import pandas as pd

from paperlab.tempo.config import Config
from paperlab.tempo.dropin import baselines
from paperlab.tempo.memory import capacity, compiled, planner
from paperlab.tempo.memory.accounting import LayerShape
from paperlab.tempo.memory.peak import step_peak
from paperlab.tempo.speed.throughput import Timing, iso_batch_overhead
from paperlab.tempo.speed.workloads import Workload
from paperlab.tempo.studies import gelu_study, memory_study, published
from paperlab.tempo.studies.layernorm_error import error_table
from paperlab.tempo.training import finetuning, pretraining

CPU, ANALYTIC = "measured-cpu", "analytic"
GIB = 2**30
LAYER = LayerShape(1, 512, 1024, 16)  # one layer of BERT-Large at the paper's longer sequences, per sample
PEERS = ("eager, paper era", "eager, modern", "checkpoint", "SDPA", "Tempo", "Tempo on SDPA")


def exhibit_gelu_curve(config: Config) -> pd.DataFrame:
    """GELU, its derivative, and the side of its minimum: columns form, x, y, slope, side."""
    return gelu_study.curve().assign(evidence=ANALYTIC)


def table_gelu_fits(config: Config) -> pd.DataFrame:
    """Error of each evaluator of g' from y, by dtype and nearness to the minimum, beside the information floor."""
    return gelu_study.evaluator_table(config.grid_points).assign(evidence=CPU)


def exhibit_gelu_error(config: Config) -> pd.DataFrame:
    """Largest fp32 error of g' along x: our fit, polynomials in y, and the released kernel's structure."""
    return gelu_study.error_along_x(config.grid_points).assign(evidence=CPU)


def table_released_gelu(config: Config) -> pd.DataFrame:
    """Error of the released kernel's structure by range of x, beside that of its printed coefficients."""
    return published.defect_table(points=config.grid_points).assign(evidence=CPU)


def exhibit_layernorm_error(config: Config) -> pd.DataFrame:
    """Gradient errors of LayerNorm from its output over gamma, beta and dtype, with and without fallback."""
    return error_table(rows=config.layernorm_rows).assign(evidence=CPU)


def figure_4(config: Config) -> pd.DataFrame:
    """Dropout in the baseline and in Tempo (Figure 4): tensors of the attention map's size kept, in units of BAS².

    Counted on one BERT-Large layer at S = 512 in fp32, where an element has 4 bytes and a mask 1.
    """
    tables = []
    for arm in ("eager, paper era", "eager, modern", "Tempo"):
        kept = memory_study.encoder_table(arm, LAYER)
        kept = kept[kept.module.str.contains("attention") & (kept.bytes >= LAYER.bas2)]
        tables.append(kept.assign(arm=arm, bytes_per_bas2=kept.bytes / LAYER.bas2))
    columns = ["arm", "operator", "bytes", "bytes_per_bas2"]
    return pd.concat(tables, ignore_index=True)[columns].assign(evidence=CPU)


def table_ledger(config: Config) -> pd.DataFrame:
    """Counted against closed-form bytes for random shapes, every arm, one to four layers."""
    return memory_study.ledger_check(config.random_shapes, config.seeds[0]).assign(evidence=CPU)


def exhibit_activation_ratio(config: Config) -> pd.DataFrame:
    """Activation ratio baseline/Tempo of one BERT-Large layer by S and dtype, against both eras' baselines."""
    seq_lens = sorted({128, 384, 512, *config.ablation_seq_lens})
    return memory_study.ratio_table(seq_lens).assign(evidence=CPU)


def exhibit_ablation(config: Config) -> pd.DataFrame:
    """Share of a layer's activations that each technique saves by S and H (heads of 64), for both eras."""
    return memory_study.ablation(config.ablation_hidden, config.ablation_seq_lens).assign(evidence=CPU)


def exhibit_bert_large(config: Config) -> pd.DataFrame:
    """What the 24 encoder layers of BERT-Large keep, in GiB, counted on the meta device."""
    rows = [
        (batch, seq, arm, memory_study.encoder_bytes(arm, LayerShape(batch, seq, 1024, 16), 24) / GIB)
        for batch, seq in ((32, 512), (128, 128))
        for arm in memory_study.FORMS
    ]
    return pd.DataFrame(rows, columns=["B", "S", "arm", "GiB"]).assign(evidence=CPU)


def table_step_peak(config: Config) -> pd.DataFrame:
    """Peak of live bytes through forward and backward of BERT-Large at B = 8, and the operator at the peak."""
    rows = []
    for seq in (128, 512):
        for arm in PEERS:
            model = baselines.configure(memory_study.bert_large(), arm)
            peak = step_peak(model, capacity.synthetic_batch(model, 8, seq))
            rows.append((seq, arm, peak.forward_bytes / GIB, peak.peak_bytes / GIB, peak.phase, peak.operator))
    columns = ["S", "arm", "after_forward_GiB", "peak_GiB", "phase", "operator"]
    return pd.DataFrame(rows, columns=columns).assign(evidence=CPU)


def table_autocast(config: Config) -> pd.DataFrame:
    """What one layer keeps in pure bf16 and under autocast, with the naive and the autocast-aware LayerNorm."""
    return memory_study.autocast_table(LayerShape(1, 256, 256, 8, 2)).assign(evidence=CPU)


def exhibit_max_batch(config: Config) -> pd.DataFrame:
    """Largest batch of BERT-Large by card, S and arm, from the capacity model (fp32 with AdamW)."""
    cards = [card for card in capacity.CARDS.values() if card.memory_bytes // GIB in config.capacity_gib]
    gpus = [(card.memory_bytes, card.reserve_bytes) for card in cards]
    rows = []
    for seq in config.capacity_seq_lens:
        model = memory_study.bert_large(seq)
        found = {arm: capacity.capacities(model, gpus, seq, arm) for arm in PEERS}
        rows += [
            (card.name, card.memory_bytes // GIB, seq, arm, found[arm][place].batch)
            for place, card in enumerate(cards)
            for arm in PEERS
        ]
    order = {card.name: place for place, card in enumerate(cards)}
    rows.sort(key=lambda row: order[row[0]])
    return pd.DataFrame(rows, columns=["card", "GiB", "S", "arm", "largest_batch"]).assign(evidence=ANALYTIC)


def table_readme(config: Config) -> pd.DataFrame:
    """The released README's batch sizes (SQuAD, S = 384) beside the capacity model's."""
    return capacity.compare_with_readme().assign(evidence=ANALYTIC)


def exhibit_loss(config: Config) -> pd.DataFrame:
    """Raw loss of every step of every arm and seed, and its distance from the baseline's."""
    recipe = pretraining.Recipe(steps=config.loss_steps)
    return pretraining.loss_table(recipe, config.loss_arms, config.seeds).assign(evidence=CPU)


def table_loss(config: Config, losses: pd.DataFrame) -> pd.DataFrame:
    """Per arm and seed of `exhibit_loss`: first step that differs, largest gaps, final loss."""
    recipe = pretraining.Recipe(steps=config.loss_steps)
    return pretraining.agreement_table(losses, recipe).assign(evidence=CPU)


def table_fine_tuning(config: Config) -> pd.DataFrame:
    """Accuracy of a tiny BERT, pre-trained and fine-tuned with and without Tempo, by seed."""
    recipe = pretraining.Recipe(steps=config.loss_steps)
    task = finetuning.Task(steps=config.fine_tuning_steps)
    return finetuning.accuracy_table(recipe, task, ("baseline", "Tempo"), config.seeds).assign(evidence=CPU)


def exhibit_step_time(config: Config) -> pd.DataFrame:
    """Time of a training step at one batch size (S = 128, fp32), each arm over the plain model, on this machine."""
    workload = Workload(config.timing_model, 128)
    arms = ("eager, torch as it is", "eager, modern", "SDPA", "checkpoint", "Tempo", "Tempo on SDPA")
    repeat = Timing(rounds=config.timing_rounds)
    return iso_batch_overhead(workload, arms, config.timing_batch, baseline=arms[0], repeat=repeat)


def exhibit_auto_tempo(config: Config) -> pd.DataFrame:
    """What Auto-Tempo converts of BERT-Large's layers (B = 8, S = 512) as its budget shrinks, and the modeled cost."""
    from paperlab.hardware import device

    bandwidth = device("A100-SXM-40GB").bandwidth_Bps
    menu = planner.menu(memory_study.bert_large(layers=config.planner_layers), 8, 512, cost=bandwidth)
    rows = []
    for fraction in (1.0, 0.75, 0.5, 0.25, 0.0):
        chosen = menu.choose(budget_fraction=fraction)
        for technique in ("gelu", "layernorm", "attention"):
            converted = len(chosen.layers(technique))
            rows.append(
                (
                    fraction,
                    technique,
                    converted,
                    config.planner_layers,
                    chosen.retained_bytes / GIB,
                    1e3 * chosen.overhead_s,
                )
            )
    columns = ["budget_fraction", "technique", "layers_converted", "layers", "retained_GiB", "overhead_ms"]
    return pd.DataFrame(rows, columns=columns).assign(evidence=ANALYTIC)


def exhibit_peers(config: Config) -> pd.DataFrame:
    """What one BERT-Large layer keeps at S = 512 under Tempo, its peers and the compiler's memory budget."""
    rows = [(arm, memory_study.layer_bytes(arm, LAYER)) for arm in (*PEERS, "Tempo, bit mask")]
    for budget in config.compile_budgets:
        kept = [compiled.compiled_bytes(*memory_study.encoder(LAYER, layers), budget) for layers in (1, 2)]
        rows.append((f"torch.compile, memory budget {budget:g}", kept[1] - kept[0]))
    table = pd.DataFrame(rows, columns=["arm", "bytes"])
    return table.assign(bytes_per_bsh=table.bytes / LAYER.bsh, evidence=CPU)
