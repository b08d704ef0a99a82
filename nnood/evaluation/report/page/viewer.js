// The viewer: the open case, where the crosshair is, and how it is drawn.

const byId = (id) => document.getElementById(id);

class Viewer {
  constructor(data) {
    this.data = data;
    this.at = [0, 0, 0];
    this.settings = { threshold: data.threshold, channel: 0 };
    this.planes = PLANES.map((plan) => new Plane(plan, this));
    byId("planes").append(...this.planes.map((plane) => plane.element));
    byId("threshold").max = data.top;
    byId("threshold").value = data.threshold;
    const isDrawn = data.cases.some((entry) => entry?.truth);
    byId("truth-row").hidden = byId("truth-readout").hidden = !isDrawn;
    byId("scale-top").textContent = data.top.toFixed(2);
    for (const id of ["threshold", "opacity", "black", "white", "truth", "crosshair", "smooth", "channel"]) {
      byId(id).addEventListener("input", () => this.change());
    }
    new ResizeObserver(() => this.draw()).observe(byId("planes"));
  }

  // Decode a case and show it. Pictures of big cases take a moment: only the last one that was asked for is shown.
  async open(number, region = null) {
    this.asked = number;
    const entry = this.data.cases[number];
    if (this.number !== number) {
      const decoding = Volume.decode(entry, byId(`picture-${number}`).textContent);
      const [volume, error] = await decoding.then((decoded) => [decoded, null], (reason) => [null, reason]);
      if (this.asked !== number) {
        return;
      }
      this.volume = volume;
      this.number = volume ? number : null;
      this.tell(entry, error);
      if (!volume) {
        return;
      }
      this.describe(entry);
      this.fit();
      this.at = volume.start();
    }
    if (region !== null) {
      this.at = this.volume.full(entry.regions[region].at);
    }
    this.change();
  }

  // Show the planes, or why they cannot be shown.
  tell(entry, error) {
    byId("case-name").textContent = entry.name;
    byId("case-facts").textContent = "";
    byId("trouble").textContent = error ? `The picture of this case cannot be shown: ${error.message}` : "";
    byId("trouble").hidden = !error;
    byId("stage").hidden = Boolean(error);
  }

  describe(entry) {
    const words = [entry.label, entry.kind === entry.label ? "" : entry.kind, `sample score ${entry.score.toFixed(4)}`];
    if (entry.factors.some((factor) => factor > 1)) {
      words.push(`shown on a grid ${entry.factors.join(" \u00d7 ")} times coarser`);
    }
    if (!entry.windows.length) {
      words.push("no image found");
    }
    if (!this.volume.isExact) {
      words.push("this browser alters pixels, scores are approximate");
    }
    byId("case-facts").textContent = words.filter(Boolean).join(" \u00b7 ");
    const buttons = entry.regions.map((region, i) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = region.text;
      button.addEventListener("click", () => this.open(this.number, i));
      item.append(button);
      return item;
    });
    byId("regions").replaceChildren(...buttons);
    byId("region-box").hidden = !buttons.length;
    byId("voxel-term").textContent = this.volume.isFlat ? "Pixel (x, y)" : "Voxel (x, y, z)";
    this.offerChannels(entry);
  }

  offerChannels(entry) {
    const select = byId("channel");
    const chosen = Math.max(0, Math.min(select.selectedIndex, entry.windows.length - 1));
    select.replaceChildren(...entry.windows.map((_, i) => new Option(entry.channels[i], i)));
    select.selectedIndex = entry.windows.length ? chosen : -1;
    byId("channel-row").hidden = entry.windows.length < 2;
  }

  fit() {
    const millimetres = this.volume.size.map((edge, i) => edge * this.volume.spacing[i]);
    const [left, back, head] = millimetres;
    const [width, height] = this.volume.isFlat ? [left, back] : [Math.max(left, back), Math.max(back, head)];
    byId("stage").classList.toggle("flat", this.volume.isFlat);
    this.planes.forEach((plane) => plane.fit(this.volume, width, height));
  }

  set(axis, value) {
    const at = [...this.at];
    at[axis] = value;
    this.move(at);
  }

  move(at) {
    if (!this.volume) {
      return;
    }
    this.at = at.map((value, axis) => Math.min(Math.max(value, 0), this.volume.size[axis] - 1));
    this.draw();
  }

  change() {
    const number = (id) => Number(byId(id).value);
    const isOn = (id) => byId(id).checked;
    this.settings = {
      threshold: number("threshold"),
      opacity: number("opacity"),
      black: number("black"),
      white: Math.max(number("white"), number("black") + 1),
      channel: Math.max(0, byId("channel").selectedIndex),
      truth: isOn("truth"),
      crosshair: isOn("crosshair"),
      smooth: isOn("smooth"),
    };
    if (!this.volume) {
      return;
    }
    const share = this.volume.entry.top / this.data.top;
    this.colours = Array.from({ length: 256 }, (_, byte) => colour((byte / 255) * share));
    // Half a step of tolerance, for a score that lay on the threshold before it was rounded.
    this.lowest = Math.ceil((this.settings.threshold / this.volume.entry.top) * 255 - 0.5);
    this.describeSettings();
    this.draw();
  }

  describeSettings() {
    const { threshold, opacity, black, white, channel } = this.settings;
    byId("threshold-value").textContent = threshold.toFixed(3);
    byId("opacity-value").textContent = `${opacity} %`;
    const window = this.volume.entry.windows[channel] || [0, 255];
    const intensity = (byte) => minus(String(Number((window[0] + (byte / 255) * (window[1] - window[0])).toPrecision(3))));
    byId("black-value").textContent = intensity(black);
    byId("white-value").textContent = intensity(white);
    const from = (100 * threshold) / this.data.top;
    const stops = COLOURS.map((stop, i) => `rgb(${stop}) ${(100 * i) / (COLOURS.length - 1)}%`);
    byId("scale-bar").style.background =
      `linear-gradient(to right, var(--track) ${from}%, transparent ${from}%), linear-gradient(to right, ${stops})`;
  }

  draw() {
    if (!this.volume) {
      return;
    }
    this.planes.forEach((plane) => plane.draw());
    const at = this.at;
    byId("readout-voxel").textContent = this.volume.voxel(at);
    byId("readout-mm").textContent = this.volume.millimetres(at).map((value) => minus((Math.round(value * 10) / 10 + 0).toFixed(1))).join(", ");
    byId("readout-intensity").textContent = this.volume.intensity(at, this.settings.channel) || "no image";
    byId("readout-score").textContent = this.volume.score(at).toFixed(3);
    const isInside = this.volume.truth[this.volume.index(at)] > 0;
    const none = this.volume.entry.label === "normal" ? "normal case" : "no mask";
    byId("readout-truth").textContent = isInside ? "anomalous" : this.volume.entry.truth ? "outside" : none;
  }
}
