// One plane of the viewer: a canvas, the slider over its slices, and the way from pixels to voxels.

// Axes of a volume: 0 to the left, 1 to the back, 2 to the head. Seen as radiologists do, the patient's right is on the
// left of the screen.
const PLANES = [
  { name: "Axial", fixed: 2, across: 0, down: 1, up: false, marks: ["R", "L", "A", "P"] },
  { name: "Coronal", fixed: 1, across: 0, down: 2, up: true, marks: ["R", "L", "S", "I"] },
  { name: "Sagittal", fixed: 0, across: 1, down: 2, up: true, marks: ["A", "P", "S", "I"] },
];

// Inferno without its darkest part, which would not show on a dark image.
const COLOURS = [
  [98, 20, 110], [135, 33, 107], [171, 47, 94], [204, 66, 72], [231, 94, 46], [247, 132, 16], [252, 174, 18],
  [245, 219, 76], [252, 255, 164],
];
const TRUTH_COLOUR = "#35e0e8";

function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (COLOURS.length - 1);
  const below = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[below].map((value, i) => value + (place - below) * (COLOURS[below + 1][i] - value));
}

class Plane {
  constructor(plan, viewer) {
    Object.assign(this, plan);
    this.viewer = viewer;
    this.element = document.createElement("div");
    this.element.className = "plane";
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.slider = document.createElement("input");
    this.slider.type = "range";
    this.slider.min = 0;
    this.slider.step = 1;
    this.label = document.createElement("label");
    this.text = document.createElement("span");
    this.label.append(this.text, this.slider);
    this.element.append(this.canvas, this.label);
    this.slider.addEventListener("input", () => viewer.set(this.fixed, Number(this.slider.value)));
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.point(event);
    });
    this.canvas.addEventListener("pointermove", (event) => event.buttons & 1 && this.point(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.layers = [document.createElement("canvas"), document.createElement("canvas")];
  }

  // Fit a volume into a box of `width` x `height` mm, the same for all planes, so that they share one scale.
  fit(volume, width, height) {
    this.volume = volume;
    this.box = [width, height];
    this.edges = [volume.size[this.across], volume.size[this.down]];
    this.steps = [volume.spacing[this.across], volume.spacing[this.down]];
    this.element.hidden = volume.isFlat && this.fixed !== 2;
    this.label.hidden = volume.size[this.fixed] === 1;
    this.slider.max = volume.size[this.fixed] - 1;
    this.title = { plane: "Image", patient: this.name, image: `Across ${"xyz"[this.fixed]}` }[volume.entry.space];
    this.canvas.setAttribute("aria-label", `${this.title}; arrow keys move the crosshair`);
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    for (const layer of this.layers) {
      [layer.width, layer.height] = this.edges;
    }
  }

  voxelAt(across, down, fixed) {
    const at = [0, 0, 0];
    at[this.across] = across;
    at[this.down] = this.up ? this.edges[1] - 1 - down : down;
    at[this.fixed] = fixed;
    return at;
  }

  // Index in the volume of every pixel of a slice, row by row.
  *indices(slice) {
    const [width, height] = this.edges;
    const stepAcross = this.volume.index(this.voxelAt(1, 0, 0)) - this.volume.index(this.voxelAt(0, 0, 0));
    for (let row = 0; row < height; row++) {
      let index = this.volume.index(this.voxelAt(0, row, slice));
      for (let column = 0; column < width; column++, index += stepAcross) {
        yield index;
      }
    }
  }

  point(event) {
    if (!this.viewer.volume) {
      return;
    }
    const bounds = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / bounds.width;
    const place = [(event.clientX - bounds.left) * scale, (event.clientY - bounds.top) * scale];
    const cell = place.map((value, i) => {
      const index = Math.floor((value - this.corner[i]) / (this.steps[i] * this.scale));
      return Math.min(Math.max(index, 0), this.edges[i] - 1);
    });
    this.viewer.move(this.voxelAt(cell[0], cell[1], this.viewer.at[this.fixed]));
  }

  key(event) {
    const moves = {
      ArrowLeft: [this.across, -1],
      ArrowRight: [this.across, 1],
      ArrowUp: [this.down, this.up ? 1 : -1],
      ArrowDown: [this.down, this.up ? -1 : 1],
      PageUp: [this.fixed, 1],
      PageDown: [this.fixed, -1],
    };
    const move = moves[event.key];
    if (move) {
      event.preventDefault();
      event.stopPropagation();
      this.viewer.set(move[0], this.viewer.at[move[0]] + move[1]);
    }
  }

  draw() {
    const width = this.canvas.clientWidth;
    if (!this.volume || !width) {
      return;
    }
    const pixels = Math.round(width * Math.min(devicePixelRatio || 1, 3));
    this.canvas.width = pixels;
    this.canvas.height = Math.max(1, Math.round((pixels * this.box[1]) / this.box[0]));
    this.scale = pixels / this.box[0];
    this.extent = this.edges.map((edge, i) => edge * this.steps[i] * this.scale);
    this.corner = [(pixels - this.extent[0]) / 2, (this.canvas.height - this.extent[1]) / 2];
    const slice = this.viewer.at[this.fixed];
    this.slider.value = slice;
    this.text.textContent = `${this.title} ${slice + 1} / ${this.volume.size[this.fixed]}`;
    this.paintLayers(slice);
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.layers.forEach((layer, i) => {
      context.imageSmoothingEnabled = i === 0 && this.viewer.settings.smooth;
      context.imageSmoothingQuality = "high";
      context.drawImage(layer, ...this.corner, ...this.extent);
    });
    this.drawTruth(context, slice);
    this.drawCrosshair(context);
    this.drawMarks(context);
  }

  paintLayers(slice) {
    const { black, white, opacity, threshold, channel } = this.viewer.settings;
    const [width, height] = this.edges;
    const image = new ImageData(width, height);
    const overlay = new ImageData(width, height);
    const grey = 255 / Math.max(1, white - black);
    const { channels, scores } = this.volume;
    let target = 0;
    for (const index of this.indices(slice)) {
      const value = (channels[channel][index] - black) * grey;
      image.data[target] = image.data[target + 1] = image.data[target + 2] = value;
      image.data[target + 3] = 255;
      const byte = scores[index];
      if (byte >= this.viewer.lowest) {
        overlay.data.set(this.viewer.colours[byte], target);
        overlay.data[target + 3] = 2.55 * opacity;
      }
      target += 4;
    }
    this.layers[0].getContext("2d").putImageData(image, 0, 0);
    this.layers[1].getContext("2d").putImageData(overlay, 0, 0);
  }

  drawTruth(context, slice) {
    if (!this.viewer.settings.truth || !this.volume.entry.truth) {
      return;
    }
    const [width, height] = this.edges;
    const mask = Uint8Array.from(this.indices(slice), (index) => this.volume.truth[index]);
    const inside = (column, row) =>
      column >= 0 && row >= 0 && column < width && row < height && mask[row * width + column] > 0;
    const x = (column) => this.corner[0] + column * this.steps[0] * this.scale;
    const y = (row) => this.corner[1] + row * this.steps[1] * this.scale;
    const path = new Path2D();
    for (let row = 0; row <= height; row++) {
      for (let column = 0; column <= width; column++) {
        const here = inside(column, row);
        if (here !== inside(column - 1, row)) {
          path.moveTo(x(column), y(row));
          path.lineTo(x(column), y(row + 1));
        }
        if (here !== inside(column, row - 1)) {
          path.moveTo(x(column), y(row));
          path.lineTo(x(column + 1), y(row));
        }
      }
    }
    const line = this.canvas.width / this.canvas.clientWidth;
    context.lineCap = "square";
    for (const [style, thickness] of [["rgba(0, 0, 0, 0.6)", 3.5], [TRUTH_COLOUR, 1.7]]) {
      context.strokeStyle = style;
      context.lineWidth = thickness * line;
      context.stroke(path);
    }
  }

  drawCrosshair(context) {
    if (!this.viewer.settings.crosshair) {
      return;
    }
    const at = this.viewer.at;
    const cells = [at[this.across], this.up ? this.edges[1] - 1 - at[this.down] : at[this.down]];
    const [x, y] = cells.map((cell, i) => this.corner[i] + (cell + 0.5) * this.steps[i] * this.scale);
    const line = this.canvas.width / this.canvas.clientWidth;
    const gap = 9 * line;
    context.strokeStyle = "rgba(255, 255, 255, 0.6)";
    context.lineWidth = line;
    context.beginPath();
    for (const [from, to] of [[[0, y], [x - gap, y]], [[x + gap, y], [this.canvas.width, y]],
      [[x, 0], [x, y - gap]], [[x, y + gap], [x, this.canvas.height]]]) {
      context.moveTo(...from);
      context.lineTo(...to);
    }
    context.stroke();
  }

  drawMarks(context) {
    if (this.volume.entry.space !== "patient") {
      return;
    }
    const { width, height } = this.canvas;
    const size = (12 * width) / this.canvas.clientWidth;
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const places = [[size, height / 2], [width - size, height / 2], [width / 2, size], [width / 2, height - size]];
    this.marks.forEach((mark, i) => {
      context.lineWidth = size / 4;
      context.strokeStyle = "rgba(0, 0, 0, 0.8)";
      context.strokeText(mark, ...places[i]);
      context.fillStyle = "#d8dde3";
      context.fillText(mark, ...places[i]);
    });
  }
}
