"""`make demo`: the whole way, with the real chat model."""

import subprocess
import sys

import pytest
from operator_manifests import ROOT

MODEL = ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.demo_model
@pytest.mark.timeout(300)
def test_the_demo_answers_and_proves_its_way():
    assert MODEL.is_file(), "run make model"
    done = subprocess.run(
        [sys.executable, "scripts/demo.py"], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "The capital of France is Paris." in done.stdout
    assert "KiB of KV cache to demo-decode-" in done.stdout
    assert "Traceback" not in done.stderr
