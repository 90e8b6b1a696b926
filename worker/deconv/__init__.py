"""The mathematics of the deconvnet: tensors in, tensors out. Knows no image files, no jobs, no queue.

Reading order, as in Zeiler & Fergus (arXiv 1311.2901, section 2): `trunk` (the network), `forward`
(the pass up), `switches` (pooling and unpooling), `selection` (which activations are kept), `profile`
(what an image makes of each unit), `projection` (whole feature maps down to pixels), `windows` (single
activations, on their receptive field only), `geometry` (where everything stands), `network` (all of it
behind one class), `control` (what a picture does not prove), `certificate` (what holds here), measured
against `slow` (the definition alone). `weights` and `batch_norm` bring the kernels, `memory` says how much
may be in flight.

Shapes in names: N images or windows, C channels (units), H height, W width; OIHW a kernel.
"""

from worker.deconv.certificate import Certificate, certify
from worker.deconv.control import Control, Controls
from worker.deconv.geometry import Window
from worker.deconv.network import Ascent, Deconvnet, Reconstruction
from worker.deconv.profile import Profile
from worker.deconv.weights import Normalisation, WeightsInfo

__all__ = [
    "Ascent",
    "Certificate",
    "Control",
    "Controls",
    "Deconvnet",
    "Normalisation",
    "Profile",
    "Reconstruction",
    "WeightsInfo",
    "Window",
    "certify",
]
