// Runs the deflated scripts one after another: the second may need what the first defines.
(async () => {
  for (const packed of JSON.parse(document.getElementById("scripts").textContent)) {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }
})();
