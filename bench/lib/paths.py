"""Where things are."""
import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("MONOLAKE_BUILD") or os.path.join(ROOT, "build")
CONF = os.path.join(ROOT, "bench", "conf")
