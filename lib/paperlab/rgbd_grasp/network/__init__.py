"""The Angle-View Net: from an image to one score per cell, view and in-plane angle."""
