// A case's picture, decoded: volumes of bytes, and where their voxels lie.

const minus = (text) => text.replace(/-/g, "\u2212");

async function readPixels(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// The pixels of a mosaic of slices, in the order of the volume: x fastest, then y, then z.
function unpack(pixels, size, columns, offset) {
  const [width, height, depth] = size;
  const volume = new Uint8Array(width * height * depth);
  let target = 0;
  for (let z = 0; z < depth; z++) {
    const left = (z % columns) * width;
    const top = Math.floor(z / columns) * height;
    for (let y = 0; y < height; y++) {
      let source = 4 * ((top + y) * pixels.width + left) + offset;
      for (let x = 0; x < width; x++, source += 4) {
        volume[target++] = pixels.data[source];
      }
    }
  }
  return volume;
}

class Volume {
  static async decode(entry, text) {
    const [first, ...others] = await Promise.all(text.trim().split("\n").map(readPixels));
    const volume = new Volume();
    volume.entry = entry;
    volume.isFlat = entry.size.length === 2;
    volume.size = volume.isFlat ? [...entry.size, 1] : entry.size;
    volume.spacing = volume.isFlat ? [...entry.spacing, 1] : entry.spacing;
    const part = (pixels, offset) => unpack(pixels, volume.size, entry.columns, offset);
    volume.channels = [part(first, 0), ...others.map((pixels) => part(pixels, 0))];
    volume.scores = part(first, 1);
    volume.truth = part(first, 2);
    volume.isExact = volume.scores.reduce((sum, value) => sum + value, 0) === entry.check;
    return volume;
  }

  index([x, y, z]) {
    return (z * this.size[1] + y) * this.size[0] + x;
  }

  score(at) {
    return (this.scores[this.index(at)] * this.entry.top) / 255;
  }

  // Beyond the window only a bound is known.
  intensity(at, channel) {
    const window = this.entry.windows[channel];
    if (!window) {
      return "";
    }
    const byte = this.channels[channel][this.index(at)];
    const value = window[0] + (byte * (window[1] - window[0])) / 255;
    const bound = byte === 0 ? "\u2264 " : byte === 255 ? "\u2265 " : "";
    return bound + minus(String(Number(value.toPrecision(3))));
  }

  // Indices in the file, in the order of its axes; a range where the picture is coarser.
  voxel(at) {
    const indices = [];
    this.entry.voxel.forEach(([axis, first, step, edge], i) => {
      const middle = first + at[i] * step;
      const half = (Math.abs(step) - 1) / 2;
      const low = Math.max(0, Math.round(middle - half));
      const high = Math.min(edge - 1, Math.round(middle + half));
      indices[axis] = low === high ? `${low}` : `${low}\u2013${high}`;
    });
    return indices.join(", ");
  }

  millimetres(at) {
    return this.entry.origin.map((start, world) =>
      this.entry.steps.reduce((sum, step, i) => sum + step[world] * at[i], start));
  }

  // Where to look first: the slices with most of the truth, else the first region, else the middle.
  start() {
    if (this.entry.truth) {
      return this.busiest();
    }
    const region = this.entry.regions[0];
    return region ? this.full(region.at) : this.size.map((edge) => Math.floor(edge / 2));
  }

  full(at) {
    return this.isFlat ? [...at, 0] : [...at];
  }

  busiest() {
    const counts = this.size.map((edge) => new Float64Array(edge));
    const [width, height, depth] = this.size;
    for (let z = 0, i = 0; z < depth; z++) {
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++, i++) {
          if (this.truth[i]) {
            counts[0][x]++;
            counts[1][y]++;
            counts[2][z]++;
          }
        }
      }
    }
    return counts.map((count) => {
      const most = Math.max(...count);
      const slices = [...count.keys()].filter((slice) => count[slice] === most);
      return slices[Math.floor(slices.length / 2)];
    });
  }
}
