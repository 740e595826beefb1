// Several videos of one frame rate that play, stop and step together.

class Sync {
  /** `videos`: elements; the first leads. `onFrame(n)` is called with each frame that is shown. */
  constructor(videos, onFrame) {
    this.videos = videos;
    this.onFrame = onFrame;
    this.hz = 25;
    this.frames = 1;
    this.at = 0; // the frame that is shown
    this.aim = 0; // the one that was asked for last
    this.speed = 1;
    this.exact = false; // play by seeking: slower, but every video shows the same frame
    this.playing = false;
    this.ready = false;
    this.loads = 0;
    this.wanted = null;
    this.seeking = null;
    videos[0].addEventListener("ended", () => this.again());
  }

  /** Load one URL for each video; false if another load began meanwhile. Rejects if one fails.
      Without `frames` their number follows from the duration. */
  async load(sources, hz, frames) {
    const mine = ++this.loads;
    this.stop();
    this.ready = false;
    if (this.seeking) await this.seeking;
    if (mine !== this.loads) return false;
    this.hz = hz;
    await Promise.all(this.videos.map((video, i) => new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = () => reject(new Error("this browser cannot play the video (H.264 in MP4)"));
      video.src = sources[i];
      video.load();
    })));
    if (mine !== this.loads) return false;
    this.frames = frames || Math.max(1, Math.round(this.videos[0].duration * hz));
    this.ready = true;
    await this.seek(Math.min(this.at, this.frames - 1));
    return mine === this.loads;
  }

  /** Show frame n on all videos; resolves once they do. Of calls in a hurry the last one counts. */
  async seek(n) {
    if (!this.ready) return;
    this.wanted = this.aim = Math.max(0, Math.min(this.frames - 1, n));
    if (!this.seeking) this.seeking = this.follow().finally(() => { this.seeking = null; });
    await this.seeking;
  }

  async follow() {
    while (this.wanted !== null) {
      const n = this.wanted;
      this.wanted = null;
      await Promise.all(this.videos.map((video) => new Promise((resolve) => {
        video.addEventListener("seeked", resolve, { once: true });
        video.addEventListener("emptied", resolve, { once: true }); // a new load: never sought
        video.currentTime = (n + 0.5) / this.hz; // its middle: rounding cannot miss it
      })));
      this.at = n;
      this.onFrame(n);
    }
  }

  /** One frame (or d frames) on, around the ends. */
  async step(d) {
    this.stop();
    await this.move(d);
  }

  async move(d) {
    await this.seek((this.aim + d + this.frames) % this.frames);
  }

  play() {
    if (this.playing || !this.ready) return;
    this.playing = true;
    if (this.exact) this.march();
    else this.again(this.at >= this.frames - 1 ? 0 : this.at);
  }

  /** All videos from frame n, running. */
  async again(n = 0) {
    if (!this.playing || this.exact) return;
    this.videos.forEach((v) => v.pause());
    await this.seek(n);
    if (!this.playing || this.exact) return;
    this.videos.forEach((v) => { v.playbackRate = this.speed; v.play().catch(() => {}); });
    requestAnimationFrame(() => this.watch());
  }

  /** While they run: report the frame, and hold the others to the first. */
  watch() {
    if (!this.playing || this.exact || this.seeking) return;
    const [lead, ...rest] = this.videos;
    for (const video of rest) {
      const ahead = (video.currentTime - lead.currentTime) * this.hz; // in frames
      if (Math.abs(ahead) > 3 && !lead.ended) video.currentTime = lead.currentTime;
      const correction = 1 - Math.max(-0.1, Math.min(0.1, ahead * 0.05));
      video.playbackRate = this.speed * correction;
    }
    this.at = this.aim = Math.min(this.frames - 1, Math.floor(lead.currentTime * this.hz + 0.01));
    this.onFrame(this.at);
    if (!lead.ended) requestAnimationFrame(() => this.watch());
  }

  async march() {
    while (this.playing && this.exact) {
      const due = performance.now() + 1000 / (this.hz * this.speed);
      await this.move(1);
      await new Promise((next) => setTimeout(next, Math.max(0, due - performance.now())));
    }
  }

  /** Stop, without waiting until all show the same frame. */
  stop() {
    this.playing = false;
    this.videos.forEach((v) => v.pause());
  }

  /** Stop with all videos on one frame. */
  async pause() {
    this.stop();
    await this.seek(this.at);
  }
}
