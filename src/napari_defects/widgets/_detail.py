"""Level of detail: few points are drawn as markers, many as one picture of them, and none that is out of view.

Without a graphics card each marker costs some ten microseconds at each redraw, so that 200,000 atoms stop the window
for seconds. Here only what is drawn changes: the layer, its table, its selection and what is saved of it are whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_defects.widgets._raster import Marks, packed, paint, unpacked

MOST = 1000
"""Markers in view of one layer that software draws fast enough to move the view."""
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "swiftshader", "software", "basic render", "gdi generic")


def attach(layer: Any, most: int | None = None) -> Detail | None:
    """Draw a Points layer by its level of detail; where a graphics card or no window draws it, leave it be."""
    node = drawn_by(layer)
    if node is None or node.canvas is None or (most is None and not drawn_in_software(node.canvas)):
        return None
    detail = Detail(node.canvas, node, most or MOST)
    layer.events.set_data()
    return detail


def drawn_by(layer: Any) -> Any:
    """Return the node of vispy that draws a layer of napari: it is among those who are told of new data."""
    for told in layer.events.set_data.callbacks:
        node = getattr(told[0](), "node", None) if isinstance(told, tuple) else None
        if hasattr(node, "points_markers"):
            return node
    return None


def drawn_in_software(canvas: Any) -> bool:
    """Whether the processor draws the window, and not a graphics card."""
    from vispy.gloo import gl

    canvas.set_current()
    name = str(gl.glGetParameter(gl.GL_RENDERER)).lower()
    return any(word in name for word in _SOFTWARE)


class Detail:
    """Stands between the points that napari gives to be drawn and the markers of vispy that draw them.

    Parameters
    ----------
    canvas : vispy.scene.SceneCanvas
    node : vispy node of a Points layer, with ``points_markers``
    most : int
        Markers in view above which a picture is drawn in their place.
    """

    def __init__(self, canvas: Any, node: Any, most: int):
        from vispy.scene import Node
        from vispy.scene.visuals import Image
        from vispy.visuals.transforms import MatrixTransform

        self.canvas, self.node, self.markers, self.most = canvas, node, node.points_markers, most
        self._marks: Marks | None = None
        self._names: Any = ()
        self._seen: Any = None
        between = Node(parent=node)  # whose transform napari resets, as of all children of a layer's node
        between.transform = MatrixTransform()
        self.picture = Image(np.zeros((1, 1, 4), np.uint8), interpolation="nearest", parent=between)
        self.picture.transform = MatrixTransform()
        self.picture.set_gl_state("translucent", depth_test=False)
        self.picture.visible = False
        self._give, self.markers.set_data = self.markers.set_data, self.take
        canvas.events.draw.connect(self.look)

    def take(self, pos: npt.NDArray[Any], **style: Any) -> None:
        """Take all points and their style, as ``Markers.set_data`` does; they are sent on when the view is drawn."""
        self._seen = None
        if len(pos) <= self.most or pos.shape[1] != 2:
            self._marks, self.picture.visible = None, False
            self._give(pos, **style)
            return
        size, border = style["size"], style["edge_width"]
        border = size * style["edge_width_rel"] if border is None else border
        symbol, self._names = pd.factorize(np.asarray(style["symbol"], object))
        n, edge, face = len(pos), style["edge_color"], style["face_color"]
        self._marks = Marks(pos, size, border, packed(edge, n), packed(face, n), symbol)
        self.markers.update()

    def look(self, _event: Any = None) -> None:
        """Choose what is drawn, just before it is: only where the view or the points have changed."""
        if self._marks is None or self.node.parent is None or not self.node.visible:
            return
        to_canvas = affine(self.markers.get_transform("visual", "canvas"))
        seen = (*to_canvas.ravel(), *self.canvas.size, self.node.opacity)
        if seen != self._seen:
            self._seen = seen
            with self.markers.events.update.blocker(), self.picture.events.update.blocker():  # no second redraw
                self._choose(self._marks, to_canvas)

    def _choose(self, marks: Marks, to_canvas: npt.NDArray[np.float64]) -> None:
        width, height = self.canvas.size
        zoom = float(np.sqrt(abs(np.linalg.det(to_canvas[:, :2]))))
        if zoom < 1e-9:  # in perspective, or from the side
            self.picture.visible = False
            self._markers(marks)
            return
        x, y = to_canvas[:, :2] @ marks.places.T + to_canvas[:, 2:]
        margin = zoom * float((marks.size + marks.border).max()) + 2.0
        marks = marks.some((x > -margin) & (x < width + margin) & (y > -margin) & (y < height + margin))
        self.picture.visible = len(marks.places) > self.most
        if not self.picture.visible:
            self._markers(marks)
            return
        self._markers(marks.some(slice(0)))
        limits = self.markers.canvas_size_limits or (0, np.inf)
        on_canvas = marks._replace(
            places=marks.places @ to_canvas[:, :2].T + to_canvas[:, 2],
            size=np.clip(marks.size * zoom, *limits),
            border=marks.border * zoom,
        )
        self.picture.set_data(paint(on_canvas, (height, width), tuple(self._names)))
        self.picture.opacity = self.node.opacity
        back = np.linalg.inv(np.vstack([to_canvas, [0, 0, 1]]))
        matrix = np.eye(4)
        matrix[:2, :2], matrix[3, :2] = back[:2, :2].T, back[:2, 2]
        self.picture.transform.matrix = matrix

    def _markers(self, marks: Marks) -> None:
        if not len(marks.places):  # vispy wants one at least
            self._give(np.zeros((1, 2)), size=0.0, symbol="o", edge_width=0.0)
            return
        self._give(
            marks.places, size=marks.size, symbol=self._names[marks.symbol], edge_width=marks.border,
            edge_color=unpacked(marks.border_color), face_color=unpacked(marks.face_color),
        )  # fmt: skip


def affine(transform: Any) -> npt.NDArray[np.float64]:
    """Return a transform of the plane as ``array([[xx, xy, x0], [yx, yy, y0]])``; zeros where it is in perspective."""
    corners = np.asarray(transform.map(np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)), float)
    origin, right, down, across = corners[:, :2] / corners[:, 3:]
    if not np.allclose(right + down, origin + across):
        return np.zeros((2, 3))
    return np.column_stack([right - origin, down - origin, origin])
