"use strict";
// Two versions of a picture, or of a video, under a line that moves.
//
// Mouse and finger: drag the line; where the whole picture is seen, drag anywhere.
// Wheel and pinch zoom at their place. Where nothing is left to do for a wheel or a
// swipe, the page scrolls.

class Viewer {
  static LARGEST = 16;
  static PAUSE = 300; // milliseconds between two turns of a wheel

  // `root` is an empty element, `room` says how high the picture may be, in CSS pixels.
  // `changed` is called with every new zoom: a scale, or "fit".
  constructor(root, room, changed = () => {}) {
    this.root = root;
    this.room = room;
    this.changed = changed;
    this.share = 0.5;
    this.zoom = "fit";
    this.width = this.height = 1;
    this.wheeled = -Infinity;
    root.classList.add("viewer", "fit");
    root.innerHTML = `
      <div class="view">
        <div class="pan" role="group" aria-label="Picture"><div class="sheet"></div></div>
        <span class="tag left"></span><span class="tag right"></span>
        <div class="handle" role="slider" tabindex="0" aria-valuemin="0"
             aria-valuemax="100" aria-label="Where the left picture ends"></div>
      </div>
      <div class="transport" hidden>
        <button type="button">Play</button>
        <input type="range" min="0" max="1" step="any" value="0" aria-label="Time">
        <output></output>
      </div>`;
    const find = (name) => root.querySelector(name);
    [this.view, this.pan, this.sheet] = [".view", ".pan", ".sheet"].map(find);
    [this.leftTag, this.rightTag] = [".tag.left", ".tag.right"].map(find);
    [this.handle, this.transport] = [".handle", ".transport"].map(find);
    [this.button, this.time, this.clock] = this.transport.children;
    this.button.onclick = () => (this.below.paused ? this.play() : this.stop());
    this.time.oninput = () => this.seek(this.time.value * this.below.duration);
    this.pan.addEventListener("scroll", () => this.place());
    this.root.addEventListener("wheel", (event) => this.turn(event), { passive: false });
    addEventListener("resize", () => this.layOut());
    this.followPointers();
    this.followFingers();
  }

  // Each side is {name, src, video}. The sizes are those of the pictures in pixels.
  show(left, right, width, height) {
    const kind = right.video ? "video" : "img";
    if (!this.below || this.below.localName !== kind) {
      this.below = document.createElement(kind);
      this.above = document.createElement(kind);
      this.sheet.replaceChildren(this.below, this.above);
      for (const video of kind === "video" ? [this.below, this.above] : []) {
        video.muted = video.playsInline = video.loop = true;
        video.onloadeddata = () => this.tell();
      }
    }
    [this.width, this.height] = [width, height];
    for (const [element, tag, side] of [
      [this.above, this.leftTag, left],
      [this.below, this.rightTag, right],
    ]) {
      if (element.getAttribute("src") !== side.src) element.src = side.src;
      tag.textContent = side.name;
      if (kind === "img") element.alt = side.name;
      else element.setAttribute("aria-label", side.name);
    }
    this.transport.hidden = kind !== "video";
    if (kind === "video") this.stop();
    this.layOut();
  }

  // CSS pixels for each of the picture.
  get scale() { return this.zoom === "fit" ? this.fitting() : this.zoom; }

  fitting() {
    return Math.min(this.root.clientWidth / this.width, this.highest / this.height);
  }

  // How high the picture may be beside what belongs to it.
  get highest() {
    const others = this.transport.hidden ? 0 : this.transport.offsetHeight + 8;
    return Math.max(160, this.room() - others);
  }

  layOut() {
    const width = this.width * this.scale, height = this.height * this.scale;
    const isFit = this.zoom === "fit";
    this.root.classList.toggle("fit", isFit);
    this.sheet.classList.toggle("large", this.scale >= 2);
    this.sheet.style.width = width + "px";
    this.sheet.style.height = height + "px";
    // Names need room, even over a narrow picture.
    this.view.style.width = Math.min(Math.max(width, 320), this.root.clientWidth) + "px";
    this.view.style.height = Math.min(height, this.highest) + "px";
    this.pan.tabIndex = isFit ? -1 : 0;
    this.place();
  }

  place() {
    const view = this.view.getBoundingClientRect();
    const sheet = this.sheet.getBoundingClientRect();
    const hidden = Math.max(0, sheet.right - (view.left + this.share * view.width));
    this.handle.style.left = this.share * 100 + "%";
    if (this.above) this.above.style.clipPath = `inset(0 ${hidden}px 0 0)`;
    const percent = Math.round(this.share * 100);
    this.handle.setAttribute("aria-valuenow", percent);
    this.handle.setAttribute("aria-valuetext", `${percent} % ${this.leftTag.textContent}`);
  }

  setShare(value) {
    this.share = Math.min(1, Math.max(0, value));
    this.place();
  }

  // What is at (x, y) of the window stays there; without them, the middle.
  setZoom(zoom, x, y, held) {
    const pan = this.pan.getBoundingClientRect();
    x ??= pan.left + pan.width / 2;
    y ??= pan.top + pan.height / 2;
    const [u, v] = held ?? this.under(x, y);
    this.zoom = zoom;
    this.layOut();
    const sheet = this.sheet.getBoundingClientRect();
    this.pan.scrollLeft += sheet.left + u * sheet.width - x;
    this.pan.scrollTop += sheet.top + v * sheet.height - y;
    this.place();
    this.changed(zoom);
  }

  under(x, y) {
    const sheet = this.sheet.getBoundingClientRect();
    return [(x - sheet.left) / sheet.width, (y - sheet.top) / sheet.height];
  }

  // Any scale that a wheel or two fingers ask for: not smaller than what fits.
  zoomFreely(scale, x, y, held) {
    const fits = scale <= this.fitting();
    this.setZoom(fits ? "fit" : Math.min(scale, Viewer.LARGEST), x, y, held);
  }

  turn(event) {
    const pause = event.timeStamp - this.wheeled;
    this.wheeled = event.timeStamp;
    if (pause > Viewer.PAUSE) {
      // A page that is scrolled must not begin to zoom on its way past the picture.
      const isVertical = Math.abs(event.deltaY) > Math.abs(event.deltaX);
      const hasUse = this.zoom !== "fit" || (event.deltaY < 0 && scrollY <= 0);
      this.wheelZooms = isVertical && hasUse;
    }
    if (!this.wheelZooms && !event.ctrlKey) return;
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    // Pinching a touchpad comes as a wheel with Ctrl, in small steps.
    const factor = 2 ** (-pixels / (event.ctrlKey ? 100 : 300));
    this.zoomFreely(this.scale * factor, event.clientX, event.clientY);
  }

  followPointers() {
    const follow = (event) => {
      const view = this.view.getBoundingClientRect();
      this.setShare((event.clientX - view.left) / view.width);
    };
    const drag = (element, starts, move) =>
      element.addEventListener("pointerdown", (event) => {
        if (event.button || !event.isPrimary || !starts(event)) return;
        element.setPointerCapture(event.pointerId);
        const on = (next) => this.pinch || move(next);
        const kinds = { pointermove: on };
        const off = () => {
          for (const kind in kinds) element.removeEventListener(kind, kinds[kind]);
        };
        kinds.pointerup = kinds.pointercancel = off;
        for (const kind in kinds) element.addEventListener(kind, kinds[kind]);
      });
    const focus = () => { this.handle.focus({ preventScroll: true }); return true; };
    drag(this.handle, focus, follow);
    drag(this.pan, (event) => {
      if (this.zoom === "fit" && event.pointerType === "mouse") follow(event);
      return this.zoom === "fit" || event.pointerType === "mouse";
    }, (event) => {
      if (this.zoom === "fit") return follow(event);
      this.pan.scrollLeft -= event.movementX;
      this.pan.scrollTop -= event.movementY;
    });
  }

  // By touch events: pointers are taken away when the browser begins to scroll.
  followFingers() {
    const middle = ([a, b]) => [(a.clientX + b.clientX) / 2, (a.clientY + b.clientY) / 2];
    const apart = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    const begin = ({ touches }) => {
      this.pinch = touches.length === 2 && {
        scale: this.scale / Math.max(1, apart(touches)),
        held: this.under(...middle(touches)),
      };
    };
    for (const kind of ["touchstart", "touchend", "touchcancel"])
      this.view.addEventListener(kind, begin, { passive: true });
    this.view.addEventListener("touchmove", (event) => {
      if (!this.pinch) return;
      event.preventDefault();
      const { scale, held } = this.pinch;
      this.zoomFreely(scale * apart(event.touches), ...middle(event.touches), held);
    }, { passive: false });
  }

  // Whether the key meant something here.
  press(event, zooms) {
    const step = event.shiftKey ? 0.1 : 0.01;
    const larger = zooms.filter((zoom) => zoom > this.scale * 1.01);
    const smaller = zooms.filter((zoom) => zoom < this.scale / 1.01);
    const actions = {
      "+": () => this.setZoom(larger[0] ?? Viewer.LARGEST),
      "-": () => {
        const next = smaller.at(-1) ?? 0;
        this.setZoom(next <= this.fitting() ? "fit" : next);
      },
      0: () => this.setZoom("fit"),
    };
    // On the picture itself these scroll.
    if (event.target !== this.pan) {
      actions.ArrowLeft = () => this.setShare(this.share - step);
      actions.ArrowRight = () => this.setShare(this.share + step);
      actions.Home = () => this.setShare(0);
      actions.End = () => this.setShare(1);
    }
    actions[event.key]?.();
    return event.key in actions;
  }

  async play() {
    this.button.textContent = "Pause";
    const follow = () => {
      if (this.below.paused || this.below.localName !== "video") return;
      // A third of a frame at 25 a second is not seen; a frame is.
      if (Math.abs(this.above.currentTime - this.below.currentTime) > 0.013 &&
          !this.above.seeking)
        this.above.currentTime = this.below.currentTime;
      this.tell();
      requestAnimationFrame(follow);
    };
    try {
      await Promise.all([this.below.play(), this.above.play()]);
      follow();
    } catch { // the video was taken away meanwhile
      this.stop();
    }
  }

  stop() {
    this.button.textContent = "Play";
    for (const video of [this.below, this.above]) video.pause?.();
    if (this.below.currentTime) this.seek(this.below.currentTime);
  }

  seek(seconds) {
    if (Number.isFinite(seconds))
      for (const video of [this.below, this.above]) video.currentTime = seconds;
    this.tell();
  }

  tell() {
    const { currentTime: now = 0, duration } = this.below;
    if (!duration) return;
    this.time.value = now / duration;
    this.clock.textContent = `${now.toFixed(1)} of ${duration.toFixed(1)} s`;
    this.time.setAttribute("aria-valuetext", this.clock.textContent);
  }
}
